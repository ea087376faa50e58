"""Backbones that Detectron2 lacks; importing this package registers them."""

from querypose.modeling.backbone.concat import (
    ConcatenatedPyramid,
    build_hrnet_concat_backbone,
    build_timm_concat_backbone,
)
from querypose.modeling.backbone.hrfpn import (
    HRFPN,
    LateralHRFPN,
    build_hrnet_hrfpn_backbone,
    build_hrnet_lateral_hrfpn_backbone,
)
from querypose.modeling.backbone.hrnet import HRNet
from querypose.modeling.backbone.swin import build_swin_fpn_backbone
from querypose.modeling.backbone.timm import TimmBackbone, build_timm_fpn_backbone

__all__ = [
    "HRFPN",
    "ConcatenatedPyramid",
    "HRNet",
    "LateralHRFPN",
    "TimmBackbone",
    "build_hrnet_concat_backbone",
    "build_hrnet_hrfpn_backbone",
    "build_hrnet_lateral_hrfpn_backbone",
    "build_swin_fpn_backbone",
    "build_timm_concat_backbone",
    "build_timm_fpn_backbone",
]
