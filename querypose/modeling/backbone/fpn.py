"""Detectron2's FPN over any bottom-up network."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool


def attach_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """Adds an FPN with a max-pooled p6 to all outputs of ``bottom_up``, as in ResNet-FPN.

    Reads MODEL.FPN.{OUT_CHANNELS, NORM, FUSE_TYPE}, but not MODEL.FPN.IN_FEATURES.
    """
    return FPN(
        bottom_up=bottom_up,
        in_features=list(bottom_up.output_shape()),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
