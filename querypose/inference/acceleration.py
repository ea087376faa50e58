"""Options that make a trained model faster (``MODEL.INFERENCE``)."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import nn

from querypose.inference.batch_norm_folding import fold_batch_norms
from querypose.inference.winograd import use_winograd
from querypose.precision import AutocastModel, check_precision


def accelerate_inference(model: nn.Module, cfg: CfgNode) -> AutocastModel:
    """Applies ``MODEL.INFERENCE`` to a trained model, which is changed in place.

    Raises:
        ValueError: the precision is unknown, or this machine does not support it.
    """
    precision = cfg.MODEL.INFERENCE.PRECISION
    check_precision(precision, next(model.parameters()).device)
    prepare_for_inference(model, cfg)
    return AutocastModel(model, precision)


def prepare_for_inference(model: nn.Module, cfg: CfgNode) -> None:
    """Applies ``MODEL.INFERENCE`` to a trained model in place; autocast is left to the caller."""
    node = cfg.MODEL.INFERENCE
    model.eval()
    if node.FOLD_BATCH_NORM:
        fold_batch_norms(model)
    if node.PRECISION == "fp32" and node.WINOGRAD_MEMORY > 0:
        use_winograd(model, node.WINOGRAD_MEMORY)
    if node.CHANNELS_LAST:
        # The small maps of the keypoint decoder would become slower.
        model.backbone.to(memory_format=torch.channels_last)
