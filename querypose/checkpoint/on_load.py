"""What ``load_state_dict`` understands beyond our own names."""

from __future__ import annotations

from torch import nn

from querypose.checkpoint.backbones import foreign_backbone
from querypose.checkpoint.pinet_released import convert_pinet_state_dict, is_pinet_state_dict
from querypose.checkpoint.released import (
    StateDict,
    convert_released_state_dict,
    is_released_state_dict,
)


def convert_on_load(module: nn.Module, state_dict: StateDict, prefix: str, *_: object) -> None:
    """A ``load_state_dict`` pre-hook that lets any loader read files of other projects, in place.

    These are released checkpoints and the backbones of :func:`foreign_backbone`. Of the latter a
    strict load says what else the model has; Detectron2's checkpointer is not strict.
    """
    own = {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }
    if is_released_state_dict(own):
        converted = convert_released_state_dict(own, module.skeleton.part_indices)
    elif is_pinet_state_dict(own):
        converted = convert_pinet_state_dict(own)
    else:
        converted = foreign_backbone(own)
    if converted is None:
        return
    for name in own:
        del state_dict[prefix + name]
    state_dict.update({prefix + name: value for name, value in converted.items()})
