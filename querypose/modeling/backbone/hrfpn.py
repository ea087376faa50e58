"""Necks that turn the four branches of HRNet into the pyramid p2..p5."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from querypose.modeling.backbone.concat import concatenate_at_finest
from querypose.modeling.backbone.hrnet import HRNet

_STRIDES = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}


class HRFPN(Backbone):
    """HRFPN (HRNetV2p in Sun et al., arXiv:1904.04514): one fused map, pooled to each level.

    Args:
        bottom_up: a network with four outputs at strides 4, 8, 16 and 32, finest first.
        out_channels: channels of every level.
        output_bias: whether the 3x3 output convolutions have a bias.
    """

    @configurable
    def __init__(self, *, bottom_up: Backbone, out_channels: int, output_bias: bool = True) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self._out_features = list(_STRIDES)
        self._out_feature_strides = dict(_STRIDES)
        self._out_feature_channels = dict.fromkeys(_STRIDES, out_channels)
        fused_channels = sum(shape.channels for shape in bottom_up.output_shape().values())
        self.reduction_conv = nn.Sequential(nn.Conv2d(fused_channels, out_channels, 1))
        self.fpn_conv = nn.ModuleList(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=output_bias) for _ in _STRIDES
        )
        for conv in (*self.reduction_conv, *self.fpn_conv):
            c2_xavier_fill(conv)

    @classmethod
    def from_config(cls, cfg: CfgNode, bottom_up: Backbone) -> dict[str, Any]:
        """Reads MODEL.FPN.OUT_CHANNELS."""
        return {"bottom_up": bottom_up, "out_channels": cfg.MODEL.FPN.OUT_CHANNELS}

    @property
    def size_divisibility(self) -> int:
        """Height and width of an image must be multiples of it, so that pooling loses no cell."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H, W) normalized images to "p2".."p5", (B, out_channels, H/s, W/s)."""
        branches = list(self.bottom_up(images).values())
        levels = [self.reduction_conv(concatenate_at_finest(branches))]
        for index in range(1, len(branches)):
            levels.append(self._coarser_level(levels[-1], branches[index], index))
        outputs = (conv(level) for conv, level in zip(self.fpn_conv, levels, strict=True))
        return dict(zip(self._out_features, outputs, strict=True))

    def _coarser_level(self, finer_level: Tensor, branch: Tensor, index: int) -> Tensor:
        return F.avg_pool2d(finer_level, kernel_size=2)


class LateralHRFPN(HRFPN):
    """HRFPN whose coarser levels also add the HRNet branch of their resolution.

    Args:
        bottom_up: a network with four outputs at strides 4, 8, 16 and 32, finest first.
        out_channels: channels of every level.
    """

    @configurable
    def __init__(self, *, bottom_up: Backbone, out_channels: int) -> None:
        super().__init__(bottom_up=bottom_up, out_channels=out_channels, output_bias=False)
        branch_channels = [shape.channels for shape in bottom_up.output_shape().values()]
        # Keyed by the index of the branch; the finest one enters through `reduction_conv` alone.
        self.lateral_conv = nn.ModuleDict(
            {
                str(index): nn.Conv2d(channels, out_channels, 1, bias=False)
                for index, channels in enumerate(branch_channels)
                if index > 0
            }
        )
        for conv in self.lateral_conv.values():
            c2_xavier_fill(conv)

    def _coarser_level(self, finer_level: Tensor, branch: Tensor, index: int) -> Tensor:
        pooled = super()._coarser_level(finer_level, branch, index)
        return pooled + self.lateral_conv[str(index)](branch)


@BACKBONE_REGISTRY.register()
def build_hrnet_hrfpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> HRFPN:
    """HRNet with the pooled neck (QueryPose with HRNet-W32)."""
    return HRFPN(cfg, HRNet(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_hrnet_lateral_hrfpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> LateralHRFPN:
    """HRNet with the pooled neck and lateral connections (QueryPose with HRNet-W48)."""
    return LateralHRFPN(cfg, HRNet(cfg, input_shape))
