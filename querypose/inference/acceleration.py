"""Switches that make a model faster without retraining it."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import nn

from querypose.inference.batch_norm_folding import fold_batch_norms
from querypose.precision import AutocastModel, check_precision


def accelerate_inference(model: nn.Module, cfg: CfgNode) -> AutocastModel:
    """Applies ``MODEL.INFERENCE`` to a trained model, which should not be used any more.

    Raises:
        ValueError: the precision is unknown, or this machine does not have it.
    """
    precision = cfg.MODEL.INFERENCE.PRECISION
    check_precision(precision, next(model.parameters()).device)
    prepare_for_inference(model, cfg)
    return AutocastModel(model, precision)


def prepare_for_inference(model: nn.Module, cfg: CfgNode) -> None:
    """Applies all of ``MODEL.INFERENCE`` but the precision to a trained model, in place."""
    node = cfg.MODEL.INFERENCE
    model.eval()
    if node.FOLD_BATCH_NORM:
        fold_batch_norms(model)
    if node.CHANNELS_LAST:
        # Not the keypoint decoder: its small maps are slower so.
        model.backbone.to(memory_format=torch.channels_last)
