"""Detectron2's Swin Transformer (Liu et al., ICCV 2021) with an FPN."""

from __future__ import annotations

import operator

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.swin import SwinTransformer

from querypose.modeling.backbone.fpn import attach_fpn


@BACKBONE_REGISTRY.register()
def build_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Swin Transformer with an FPN over its four stages.

    Raises:
        ValueError: the width of a stage is not a multiple of its number of heads.
    """
    node = cfg.MODEL.SWIN
    widths = [node.EMBED_DIM * 2**stage for stage in range(len(node.DEPTHS))]
    if len(node.NUM_HEADS) != len(widths) or any(map(operator.mod, widths, node.NUM_HEADS)):
        raise ValueError(
            f"MODEL.SWIN.NUM_HEADS {list(node.NUM_HEADS)} must have a divisor of the channels for "
            f"each of the {len(widths)} stages in MODEL.SWIN.DEPTHS, whose channels are {widths}."
        )
    swin = SwinTransformer(
        embed_dim=node.EMBED_DIM,
        depths=node.DEPTHS,
        num_heads=node.NUM_HEADS,
        window_size=node.WINDOW_SIZE,
        drop_path_rate=node.DROP_PATH_RATE,
        in_chans=input_shape.channels,
    )
    return attach_fpn(cfg, swin)
