"""Files of other projects: which kinds there are, and what their tensors are called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

StateDict = dict[str, Tensor]

BACKBONE = "backbone.bottom_up."
"""What the names of a backbone's tensors begin with in a whole model."""


@dataclass(frozen=True)
class CheckpointFormat:
    """A kind of file.

    Attributes:
        recognizes: whether tensors are of this kind, by their names.
        convert: gives them the names, signs and shapes that a model wants.
        backbone_only: whether such files hold a backbone alone, to start a training from.
    """

    recognizes: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[[Mapping[str, Tensor], nn.Module], StateDict]
    backbone_only: bool


_FORMATS: list[CheckpointFormat] = []


def register_format(checkpoint_format: CheckpointFormat) -> None:
    """Lets every loader read files of one more kind; what is registered first is tried first."""
    _FORMATS.append(checkpoint_format)


def find_format(state_dict: Mapping[str, Tensor]) -> CheckpointFormat | None:
    """The kind of a file, or None where its tensors have our names, or nobody knows them."""
    return next((each for each in _FORMATS if each.recognizes(state_dict)), None)


def inner_weights(content: Any) -> Any:
    """The weights in the file of another project's training: the best ones, or the last ones."""
    if isinstance(content, Mapping):
        for key in ("best_state_dict", "state_dict"):
            if isinstance(content.get(key), Mapping):
                return dict(content[key])
    return content


def is_computed(name: str) -> bool:
    """Whether a tensor follows from the model's shape, so that a file may leave it out."""
    return name.endswith("relative_position_index")


def convert_on_load(module: nn.Module, state_dict: StateDict, prefix: str, *_: object) -> None:
    """A ``load_state_dict`` pre-hook that lets any loader read such files, in place.

    What the model computes by itself is filled in where a file leaves it out. Of a backbone's file
    a strict load says what else the model has; Detectron2's checkpointer is not strict.
    """
    own = {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }
    checkpoint_format = find_format(own)
    if checkpoint_format is not None:
        for name in own:
            del state_dict[prefix + name]
        converted = checkpoint_format.convert(own, module)
        state_dict.update({prefix + name: value for name, value in converted.items()})
    for name, value in module.state_dict().items():
        if is_computed(name):
            state_dict.setdefault(prefix + name, value)
