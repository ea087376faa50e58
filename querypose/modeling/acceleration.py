"""Switches that make a model faster without retraining it."""

from __future__ import annotations

import logging
import platform
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from querypose.modeling.batch_norm_folding import fold_batch_norms

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class InferenceModel(nn.Module):
    """A model in evaluation mode, under autocast where its precision is not float32.

    Boxes, keypoints and scores are computed in float32 in any precision.

    Args:
        model: takes and gives what a Detectron2 meta-architecture does.
        precision: one of ``PRECISIONS``.
    """

    def __init__(self, model: nn.Module, precision: str = "fp32") -> None:
        super().__init__()
        self.model = model.eval()
        self.dtype = PRECISIONS[precision]

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predicts; see :meth:`querypose.modeling.QueryPose.forward`."""
        device_type = next(self.model.parameters()).device.type
        with torch.autocast(device_type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            return self.model(batched_inputs)


def accelerate_inference(model: nn.Module, cfg: CfgNode) -> InferenceModel:
    """Applies ``MODEL.INFERENCE`` to a trained model, which should not be used any more.

    Raises:
        ValueError: the precision is unknown, or this machine does not have it.
    """
    precision = cfg.MODEL.INFERENCE.PRECISION
    check_precision(precision, next(model.parameters()).device)
    prepare_for_inference(model, cfg)
    return InferenceModel(model, precision)


def prepare_for_inference(model: nn.Module, cfg: CfgNode) -> None:
    """Applies all of ``MODEL.INFERENCE`` but the precision to a trained model, in place."""
    node = cfg.MODEL.INFERENCE
    model.eval()
    if node.FOLD_BATCH_NORM:
        fold_batch_norms(model)
    if node.CHANNELS_LAST:
        # Not the keypoint decoder: its small maps are slower so.
        model.backbone.to(memory_format=torch.channels_last)
    if node.COMPILE:
        compile_model(model)


def accelerate_training(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Applies ``MODEL.TRAINING`` to a model, in place, before DDP wraps it."""
    node = cfg.MODEL.TRAINING
    if node.CHANNELS_LAST:
        # Not the keypoint decoder: its small maps are slower so.
        model.backbone.to(memory_format=torch.channels_last)
    if node.COMPILE:
        compile_model(model)
    return model


def check_precision(precision: str, device: torch.device) -> None:
    """Checks that a device can compute in a precision; warns where it only imitates it.

    Raises:
        ValueError: it cannot, or there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"The precision is one of {list(PRECISIONS)}, not {precision!r}.")
    supported = True
    if device.type == "cpu" and precision == "bf16":
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if supported and _imitates_bf16():
            logging.getLogger(__name__).warning(
                "This processor imitates bf16 arithmetic, which is slower than fp32."
            )
    elif device.type == "cpu" and precision == "fp16":
        supported = torch.ops.mkldnn._is_mkldnn_fp16_supported()
    elif device.type == "cuda" and precision == "bf16":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    if not supported:
        raise ValueError(f"This machine's {device.type} has no {precision} arithmetic; use 'fp32'.")


def _imitates_bf16() -> bool:
    """Whether this is an x86 processor that oneDNN computes bf16 on by widening to fp32."""
    return platform.machine() in ("x86_64", "AMD64") and not (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def compile_model(model: nn.Module) -> None:
    """Compiles backbone and decoder stages, in place; what lies between them is data dependent."""
    model.backbone.compile()
    for stage in (*model.decoder.box_stages, *model.decoder.keypoint_stages):
        stage.compile(dynamic=True)
