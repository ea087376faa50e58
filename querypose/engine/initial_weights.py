"""Warns of a training that starts from random weights, which is seldom meant."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from torch import nn

from querypose.modeling.backbone.timm import TimmBackbone


def warn_of_random_weights(cfg: CfgNode, model: nn.Module) -> None:
    """Logs one line if every weight of a model is random, with the ways out.

    Args:
        cfg: the config of the training.
        model: the model, before anything else was loaded.
    """
    is_timm = any(isinstance(module, TimmBackbone) for module in model.modules())
    if cfg.MODEL.WEIGHTS or (is_timm and cfg.MODEL.TIMM.PRETRAINED):
        return
    download = (
        f", or MODEL.TIMM.PRETRAINED True to download timm's ImageNet weights of "
        f"{cfg.MODEL.TIMM.NAME}"
    )
    logging.getLogger(__name__).warning(
        "The training starts from random weights, also in the backbone: set MODEL.WEIGHTS to the "
        "file of a trained model or of a backbone%s.",
        download if is_timm else "",
    )
