"""A pyramid as one map: all levels, upsampled to the finest one and concatenated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor

from querypose.modeling.backbone.hrnet import HRNet
from querypose.modeling.backbone.timm import TimmBackbone


class ConcatenatedPyramid(Backbone):
    """The concatenated feature maps of a network, named "concat"; it has no parameters of its own.

    With HRNet these are the features of dense pose estimators (DEKR, Geng et al., CVPR 2021): 480
    channels of W32, 720 of W48.

    Args:
        bottom_up: a network whose outputs are ordered from fine to coarse.
    """

    def __init__(self, bottom_up: Backbone) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        shapes = list(bottom_up.output_shape().values())
        self._out_features = ["concat"]
        self._out_feature_strides = {"concat": shapes[0].stride}
        self._out_feature_channels = {"concat": sum(shape.channels for shape in shapes)}

    @property
    def size_divisibility(self) -> int:
        """Height and width of an image must be multiples of it."""
        return self.bottom_up.size_divisibility

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H, W) normalized images to "concat", (B, channels, H/4, W/4)."""
        return {"concat": concatenate_at_finest(list(self.bottom_up(images).values()))}


def concatenate_at_finest(levels: Sequence[Tensor]) -> Tensor:
    """Upsamples all maps to the size of the first one and concatenates their channels.

    Args:
        levels: (B, C_i, H_i, W_i) each, finest first.

    Returns:
        (B, sum of C_i, H_0, W_0).
    """
    finest, *coarser = levels
    size = finest.shape[-2:]
    return torch.cat(
        [finest, *(F.interpolate(level, size=size, mode="bilinear") for level in coarser)], dim=1
    )


@BACKBONE_REGISTRY.register()
def build_hrnet_concat_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ConcatenatedPyramid:
    """The four branches of HRNet (published models of the dense methods)."""
    return ConcatenatedPyramid(HRNet(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_timm_concat_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ConcatenatedPyramid:
    """The four feature maps of a timm network."""
    return ConcatenatedPyramid(TimmBackbone(cfg, input_shape))
