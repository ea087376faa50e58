"""HRNet as a pose network: all four resolutions of its last stage."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.models.hrnet import HighResolutionNetFeatures, cfg_cls
from torch import Tensor

_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class HRNet(HighResolutionNetFeatures, Backbone):
    """The four branches of HRNet's last stage (Sun et al., CVPR 2019), with trained batch norm.

    It inherits timm's network, so its tensors have the names of published HRNet pose weights.

    Args:
        name: timm's name of the network, such as "hrnet_w32".
        in_channels: channels of the image.

    Raises:
        ValueError: timm has no HRNet of that name.
    """

    @configurable
    def __init__(self, *, name: str, in_channels: int = 3) -> None:
        if name not in cfg_cls:
            raise ValueError(
                f"MODEL.HRNET.NAME: timm has no HRNet '{name}'; choose one of {', '.join(cfg_cls)}."
            )
        # "" selects the branches themselves, not those behind a classification head.
        super().__init__(
            cfg_cls[name], in_chans=in_channels, feature_location="", out_indices=(1, 2, 3, 4)
        )
        self._out_features = list(_STRIDES)
        self._out_feature_strides = dict(_STRIDES)
        self._out_feature_channels = dict(zip(_STRIDES, self.feature_info.channels(), strict=True))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads MODEL.HRNET."""
        return {"name": cfg.MODEL.HRNET.NAME, "in_channels": input_shape.channels}

    @property
    def size_divisibility(self) -> int:
        """Height and width of an image must be multiples of it, so that branches can be added."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H, W) normalized images to "res2".."res5" at strides 4, 8, 16, 32."""
        return dict(zip(self._out_features, super().forward(images), strict=True))
