"""Any network of the timm library with a feature pyramid as a backbone."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import timm
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from querypose.modeling.backbone.fpn import attach_fpn

_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
# Height and width of an image that no network is designed for.
_PROBE_SIZE = (96, 160)


class TimmBackbone(Backbone):
    """The feature maps of a timm network at strides 4, 8, 16 and 32.

    Args:
        name: timm's name of the network, with or without a tag ("resnet18", "resnet18.a1_in1k").
        pretrained: download timm's ImageNet weights.
        freeze_bn: turn batch norms into fixed affine maps.
        freeze_at: number of feature maps, from the finest on, whose parameters are not trained;
            for pretrained networks. Statistics of batch norms are frozen by ``freeze_bn`` alone.
        in_channels: channels of the image.

    Raises:
        ValueError: timm has no such network, the network has no such feature maps or cannot take
            images of any size, or ``freeze_at`` is not within 0..4.
        OSError: the pretrained weights cannot be downloaded.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        pretrained: bool = False,
        freeze_bn: bool = False,
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if not 0 <= freeze_at <= len(_STRIDES):
            raise ValueError(
                f"MODEL.TIMM.FREEZE_AT must be within 0..{len(_STRIDES)}, not {freeze_at}."
            )
        network = _create_network(name, pretrained=pretrained, in_channels=in_channels)
        levels = _find_levels(name, network)
        self._out_features = list(_STRIDES)
        self._out_feature_strides = dict(_STRIDES)
        self._out_feature_channels = {
            feature: network.feature_info[level]["num_chs"]
            for feature, level in zip(_STRIDES, levels, strict=True)
        }
        if freeze_at:
            _freeze_through(network, network.feature_info[levels[freeze_at - 1]]["module"])
        # Parameters behind the last map would get no gradient, and DDP would fail.
        self._levels = network.prune_intermediate_layers(levels, prune_norm=True, prune_head=True)
        # Detectron2's own conversion would drop the activation inside timm's BatchNormAct2d.
        self.network = freeze_batch_norm_2d(network) if freeze_bn else network
        self._check_maps(name, in_channels)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads MODEL.TIMM."""
        return {
            "name": cfg.MODEL.TIMM.NAME,
            "pretrained": cfg.MODEL.TIMM.PRETRAINED,
            "freeze_bn": cfg.MODEL.TIMM.FREEZE_BN,
            "freeze_at": cfg.MODEL.TIMM.FREEZE_AT,
            "in_channels": input_shape.channels,
        }

    @property
    def size_divisibility(self) -> int:
        """Height and width of an image must be multiples of it."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H, W) normalized images to "res2".."res5", (B, channels, H/s, W/s)."""
        maps = self.network.forward_intermediates(
            images, indices=self._levels, output_fmt="NCHW", intermediates_only=True
        )
        return dict(zip(self._out_features, maps, strict=True))

    @torch.no_grad()
    def _check_maps(self, name: str, in_channels: int) -> None:
        """Runs the network once, as its description does not tell whether it takes any size.

        Raises:
            ValueError: it refuses an image, or the sizes of its maps do not fit their strides.
        """
        height, width = _PROBE_SIZE
        expected = [(height // stride, width // stride) for stride in _STRIDES.values()]
        try:
            maps = self.eval()(torch.zeros(1, in_channels, height, width))
        except Exception as error:  # Each network raises errors of its own.
            raise ValueError(
                f"MODEL.TIMM.NAME: '{name}' does not take images of any size; choose a "
                "convolutional network or a Swin Transformer."
            ) from error
        finally:
            self.train()
        sizes = [tuple(feature.shape[-2:]) for feature in maps.values()]
        if sizes != expected:
            raise ValueError(
                f"MODEL.TIMM.NAME: for an image of {height} x {width} pixels '{name}' makes maps "
                f"of {sizes} cells, not of {expected}; choose another network."
            )


def _create_network(name: str, *, pretrained: bool, in_channels: int) -> nn.Module:
    if not timm.is_model(name):
        similar = get_close_matches(name, timm.list_models())
        hint = f"did you mean {' or '.join(similar)}?" if similar else "see timm.list_models()."
        raise ValueError(f"MODEL.TIMM.NAME: timm has no network '{name}'; {hint}")
    try:
        return _create_for_any_size(name, {"pretrained": pretrained, "in_chans": in_channels})
    except Exception as error:  # The client of the hub raises errors of many kinds.
        if not pretrained:
            raise
        raise OSError(
            f"MODEL.TIMM.PRETRAINED: timm's weights of '{name}' cannot be downloaded "
            f"({_first_cause(error)}); set the key to False, or name a file in MODEL.WEIGHTS."
        ) from error


def _first_cause(error: BaseException) -> str:
    """The message of the first error in a chain, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{str(error).strip() or type(error).__name__}".splitlines()[0].rstrip(".")


def _create_for_any_size(name: str, options: dict[str, Any]) -> nn.Module:
    """Creates a network that takes images of any size, if it can."""
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        try:
            return timm.create_model(name, strict_img_size=False, **options)
        except TypeError as error:
            # Some take any size without this option.
            if "strict_img_size" not in str(error):
                raise
    return timm.create_model(name, **options)


def _find_levels(name: str, network: nn.Module) -> list[int]:
    """Indices of the last map at each stride of ``_STRIDES``."""
    strides = [level["reduction"] for level in getattr(network, "feature_info", [])]
    if not set(_STRIDES.values()) <= set(strides):
        raise ValueError(
            f"MODEL.TIMM.NAME: '{name}' has feature maps at strides {sorted(set(strides))}, not at "
            "4, 8, 16 and 32; choose a network that has them, such as resnet50."
        )
    last_level = {stride: level for level, stride in enumerate(strides)}
    return [last_level[stride] for stride in _STRIDES.values()]


def _freeze_through(network: nn.Module, module: str) -> None:
    """Freezes the parameters of a module and of all modules before it in the network."""
    names = [name for name, _ in network.named_parameters()]
    last = max(index for index, name in enumerate(names) if name.startswith(f"{module}."))
    for name in names[: last + 1]:
        network.get_parameter(name).requires_grad_(False)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A timm network with Detectron2's FPN."""
    return attach_fpn(cfg, TimmBackbone(cfg, input_shape))
