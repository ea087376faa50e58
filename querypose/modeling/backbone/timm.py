"""Any pyramid-shaped network of the timm library as a backbone."""

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
# Height and width of an image that no network was made for.
_PROBE_SIZE = (96, 160)


class TimmBackbone(Backbone):
    """The feature maps at strides 4, 8, 16 and 32 of a timm network, without its head.

    Args:
        name: timm's name of the network, with or without a tag ("resnet18", "resnet18.a1_in1k").
        pretrained: download timm's ImageNet weights.
        freeze_bn: turn batch norms into fixed affine maps.
        freeze_at: how many of the feature maps, from the finest on, keep the weights that lead to
            them; 0 trains all. For pretrained networks.
        in_channels: channels of the image.

    Raises:
        ValueError: timm has no such network, the network has no such feature maps or does not take
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
            raise ValueError(f"MODEL.TIMM.FREEZE_AT is within 0..{len(_STRIDES)}, not {freeze_at}.")
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
        # Parameters behind the last map would get no gradient, which DDP does not forgive.
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
        """Pixels that height and width must be a multiple of."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, C, H, W) normalized images to "res2".."res5", (B, channels, H/s, W/s)."""
        maps = self.network.forward_intermediates(
            images, indices=self._levels, output_fmt="NCHW", intermediates_only=True
        )
        return dict(zip(self._out_features, maps, strict=True))

    @torch.no_grad()
    def _check_maps(self, name: str, in_channels: int) -> None:
        """Tries the network out: what it says of itself does not tell whether any size will do.

        Raises:
            ValueError: it refuses an image, or its maps' sizes are not those of their strides.
        """
        height, width = _PROBE_SIZE
        expected = [(height // stride, width // stride) for stride in _STRIDES.values()]
        try:
            maps = self.eval()(torch.zeros(1, in_channels, height, width))
        except Exception as error:  # Networks refuse in many ways.
            raise ValueError(
                f"MODEL.TIMM.NAME: '{name}' does not take images of any size; choose a "
                "convolutional network or a Swin Transformer."
            ) from error
        finally:
            self.train()
        sizes = [tuple(feature.shape[-2:]) for feature in maps.values()]
        if sizes != expected:
            raise ValueError(
                f"MODEL.TIMM.NAME: '{name}' makes maps of {sizes} cells of an image of "
                f"{height} x {width}, not of {expected}; choose another network."
            )


def _create_network(name: str, *, pretrained: bool, in_channels: int) -> nn.Module:
    if not timm.is_model(name):
        similar = get_close_matches(name, timm.list_models())
        hint = f"did you mean {' or '.join(similar)}?" if similar else "see timm.list_models()."
        raise ValueError(f"MODEL.TIMM.NAME: timm has no network '{name}'; {hint}")
    try:
        return _create_for_any_size(name, {"pretrained": pretrained, "in_chans": in_channels})
    except Exception as error:  # The hub's client fails in many ways.
        if not pretrained:
            raise
        raise OSError(
            f"MODEL.TIMM.PRETRAINED: timm's weights of '{name}' cannot be downloaded "
            f"({_first_cause(error)}); set the key False, or name a file in MODEL.WEIGHTS."
        ) from error


def _first_cause(error: BaseException) -> str:
    """What went wrong before everything else that an error tells, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{str(error).strip() or type(error).__name__}".splitlines()[0].rstrip(".")


def _create_for_any_size(name: str, options: dict[str, Any]) -> nn.Module:
    """Asks networks that were made for one image size to take others, where they can."""
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        try:
            return timm.create_model(name, strict_img_size=False, **options)
        except TypeError as error:
            # Some take any size without being asked.
            if "strict_img_size" not in str(error):
                raise
    return timm.create_model(name, **options)


def _find_levels(name: str, network: nn.Module) -> list[int]:
    """Indices of the last map at each stride of ``_STRIDES``."""
    strides = [level["reduction"] for level in getattr(network, "feature_info", [])]
    if not set(_STRIDES.values()) <= set(strides):
        raise ValueError(
            f"MODEL.TIMM.NAME: '{name}' has feature maps at strides {sorted(set(strides))}, but "
            "4, 8, 16 and 32 are needed; choose a network that has them, such as resnet50."
        )
    last_level = {stride: level for level, stride in enumerate(strides)}
    return [last_level[stride] for stride in _STRIDES.values()]


def _freeze_through(network: nn.Module, module: str) -> None:
    """Fixes the parameters of a module and of all before it, in the order of the network."""
    names = [name for name, _ in network.named_parameters()]
    last = max(index for index, name in enumerate(names) if name.startswith(f"{module}."))
    for name in names[: last + 1]:
        network.get_parameter(name).requires_grad_(False)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A timm network with Detectron2's FPN."""
    return attach_fpn(cfg, TimmBackbone(cfg, input_shape))
