"""Switches that make a model faster without retraining it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_BATCH_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


class InferenceModel(nn.Module):
    """A model in evaluation mode, under autocast where its precision is not float32.

    Boxes, keypoints and scores are computed in float32 in any precision.

    Args:
        model: takes and gives what a Detectron2 meta-architecture does.
        precision: one of ``PRECISIONS``.
    """

    def __init__(self, model: nn.Module, precision: str = "float32") -> None:
        super().__init__()
        self.model = model.eval()
        self.dtype = PRECISIONS[precision]

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predicts; see :meth:`querypose.modeling.QueryPose.forward`."""
        device_type = next(self.model.parameters()).device.type
        with torch.autocast(device_type, dtype=self.dtype, enabled=self.dtype is not torch.float32):
            return self.model(batched_inputs)


def accelerate_inference(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Applies ``MODEL.INFERENCE`` to a trained model, which should not be used any more.

    Raises:
        ValueError: the precision is unknown, or this processor does not have it.
    """
    node = cfg.MODEL.INFERENCE
    check_precision(node.PRECISION, next(model.parameters()).device)
    model.eval()
    if node.FOLD_BATCH_NORM:
        fold_batch_norms(model)
    if node.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
    if node.COMPILE:
        compile_model(model)
    return InferenceModel(model, node.PRECISION)


def accelerate_training(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Applies ``MODEL.TRAINING`` to a model, in place, before DDP wraps it."""
    node = cfg.MODEL.TRAINING
    if node.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
    if node.COMPILE:
        compile_model(model)
    return model


def check_precision(precision: str, device: torch.device) -> None:
    """Raises a ValueError where a precision is unknown or would be emulated."""
    if precision not in PRECISIONS:
        raise ValueError(f"The precision is one of {list(PRECISIONS)}, not {precision!r}.")
    if device.type != "cpu" or precision == "float32":
        return
    if precision == "float16":
        raise ValueError("float16 is for GPUs; on a CPU use float32 or bfloat16.")
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        raise ValueError("This processor does not compute in bfloat16; use float32.")


def compile_model(model: nn.Module) -> None:
    """Compiles backbone and decoder stages, in place; what lies between them is data dependent."""
    model.backbone.compile()
    for stage in (*model.decoder.box_stages, *model.decoder.keypoint_stages):
        stage.compile(dynamic=True)


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> int:
    """Folds every batch norm that directly follows a convolution into it, in place.

    Returns:
        How many batch norms are gone.
    """
    folded = 0
    for module in list(model.modules()):
        # Detectron2's convolution calls its norm itself.
        if isinstance(module, nn.Conv2d) and isinstance(
            getattr(module, "norm", None), _BATCH_NORMS
        ):
            _fold(module, module.norm)
            module.norm = None
            folded += 1
        if isinstance(module, nn.Sequential):
            folded += _fold_sequence(module)
    return folded


def _fold_sequence(sequence: nn.Sequential) -> int:
    folded = 0
    names = list(sequence._modules)
    for before, after in pairwise(names):
        conv, norm = sequence._modules[before], sequence._modules[after]
        is_conv = type(conv) in (nn.Conv2d, nn.ConvTranspose2d)
        if is_conv and type(norm) in _BATCH_NORMS:
            _fold(conv, norm)
            sequence._modules[after] = nn.Identity()
            folded += 1
    return folded


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, nn.ConvTranspose2d),
    )
