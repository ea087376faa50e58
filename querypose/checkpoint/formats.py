"""Checkpoint formats of other projects, and the conversion of their tensors to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

StateDict = dict[str, Tensor]

BACKBONE = "backbone.bottom_up."
"""Prefix of the backbone's tensor names in a model."""


@dataclass(frozen=True)
class CheckpointFormat:
    """A checkpoint format of another project.

    Attributes:
        recognizes: whether a state dict has this format, by its tensor names.
        convert: maps tensors to the names, signs and shapes of a model.
        backbone_only: whether such files hold a backbone alone.
    """

    recognizes: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[[Mapping[str, Tensor], nn.Module], StateDict]
    backbone_only: bool


_FORMATS: list[CheckpointFormat] = []


def register_format(checkpoint_format: CheckpointFormat) -> None:
    """Lets every loader read one more format; formats are tried in the order of registration."""
    _FORMATS.append(checkpoint_format)


def find_format(state_dict: Mapping[str, Tensor]) -> CheckpointFormat | None:
    """The format of a state dict, or None if it is ours or unknown."""
    return next((each for each in _FORMATS if each.recognizes(state_dict)), None)


def inner_weights(content: Any) -> Any:
    """The weights in a training checkpoint of another project: the best ones, else the last."""
    if isinstance(content, Mapping):
        for key in ("best_state_dict", "state_dict"):
            if isinstance(content.get(key), Mapping):
                return dict(content[key])
    return content


def is_computed(name: str) -> bool:
    """Whether the model computes a tensor itself, so that a file may lack it."""
    return name.endswith("relative_position_index")


def convert_on_load(module: nn.Module) -> None:
    """Makes ``load_state_dict`` of a module convert other formats, so that any loader can.

    State dicts change in place, and get the tensors that the model computes itself. A strict load
    of a backbone file still reports the rest of the model as missing; Detectron2's is not strict.
    """
    # PyTorch 2.5 made this method public.
    module._register_load_state_dict_pre_hook(_convert, with_module=True)


def _convert(module: nn.Module, state_dict: StateDict, prefix: str, *_: object) -> None:
    tensors = {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }
    checkpoint_format = find_format(tensors)
    if checkpoint_format is not None:
        for name in tensors:
            del state_dict[prefix + name]
        converted = checkpoint_format.convert(tensors, module)
        state_dict.update({prefix + name: value for name, value in converted.items()})
    for name, value in module.state_dict().items():
        if is_computed(name):
            state_dict.setdefault(prefix + name, value)
