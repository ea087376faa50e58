"""Conversion of the checkpoints that PINet's authors published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from querypose.checkpoint.formats import BACKBONE, CheckpointFormat, StateDict, register_format

_RENAMES = (
    (r"backbone\.", BACKBONE),
    (r"ppg\.heatmap_head\.", "head.heatmaps."),
    (r"ppg\.detkptmap_head\.", "head.parts."),
    (r"ppg\.offset_head\.", "head.offsets."),
    (r"pr\.adj$", "refinement.adjacency"),
    (r"pr\.gconv_head\.", "refinement.first_block."),
    (r"pr\.gconv_layers\.(\d+)\.gconv1\.", r"refinement.layers.\1.0."),
    (r"pr\.gconv_layers\.(\d+)\.gconv2\.", r"refinement.layers.\1.1."),
    (r"pr\.gconv_pred\.([01])\.", r"refinement.reduction.\1."),
    (r"pr\.gconv_pred\.3\.", "refinement.correction."),
)
# The published code predicts cell minus keypoint, ours keypoint minus cell.
_NEGATED = ("ppg.offset_head.", "pr.gconv_pred.3.")


def is_pinet_state_dict(names: Iterable[str]) -> bool:
    """Whether tensor names are those of a checkpoint published by PINet's authors."""
    return any(name.startswith("ppg.offset_head.") for name in names)


def convert_pinet_state_dict(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Maps the tensors of a published checkpoint to our names and signs.

    Args:
        state_dict: as in the published file.

    Returns:
        A state dict of :class:`querypose.modeling.meta_arch.pinet.PINet`.

    Raises:
        ValueError: a tensor's name is unknown.
    """
    return {_renamed(name): _converted(name, value) for name, value in state_dict.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            block = renamed.startswith(("refinement.first_block.", "refinement.layers."))
            return re.sub(r"\.bn\.", ".norm.", renamed.replace(".conv.", ".")) if block else renamed
    raise ValueError(f"The checkpoint holds {name!r}, which no released PINet has.")


def _converted(name: str, value: Tensor) -> Tensor:
    if name.startswith("pr.gconv_pred.") and value.dim() == 3:
        value = value.squeeze(-1)
    return -value if name.startswith(_NEGATED) else value


def _convert(state_dict: Mapping[str, Tensor], _: nn.Module) -> StateDict:
    return convert_pinet_state_dict(state_dict)


register_format(CheckpointFormat(is_pinet_state_dict, _convert, backbone_only=False))
