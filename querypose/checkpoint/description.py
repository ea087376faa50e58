"""What a checkpoint says of its model, beside the weights: config, keypoints and classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from typing import Any

from querypose.checkpoint.download import read_at
from querypose.checkpoint.files import read_checkpoint
from querypose.skeleton import Skeleton

_KEY = "description"


@dataclass(frozen=True)
class ModelDescription:
    """What is needed beside the weights to predict with them.

    Attributes:
        config: of the training, written by :func:`querypose.config.config_to_json`.
        skeleton: the keypoints; None for models that find none.
        category_ids: of the classes, from the label file of the training; empty if unknown.
        class_names: of the classes, in their order; empty if unknown.
    """

    config: str
    skeleton: Skeleton | None = None
    category_ids: tuple[int | str, ...] = ()
    class_names: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """What to add to the content of a checkpoint; plain data."""
        skeleton = None if self.skeleton is None else self.skeleton.to_dict()
        return {
            _KEY: {
                "config": self.config,
                "skeleton": skeleton,
                "category_ids": list(self.category_ids),
                "class_names": list(self.class_names),
            }
        }

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any], name: str) -> ModelDescription | None:
        """The description in the content of a checkpoint; None if there is none.

        Args:
            content: as :func:`querypose.checkpoint.files.read_checkpoint` returns it.
            name: of the file, in errors.

        Raises:
            ValueError: it is not one.
        """
        if _KEY not in content:
            return None
        try:
            config, skeleton, category_ids = (
                content[_KEY][key] for key in ("config", "skeleton", "category_ids")
            )
            return cls(
                str(config),
                None if skeleton is None else Skeleton.from_dict(skeleton),
                tuple(category_ids),
                # Earlier versions did not tell them.
                tuple(content[_KEY].get("class_names", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name} describes its model wrongly: {error!r}.") from error


def read_description(
    address: str | PathLike[str], *, weights_only: bool = True
) -> ModelDescription | None:
    """Reads what a checkpoint says of its model, without its weights.

    Args:
        address: any that :func:`querypose.checkpoint.download.read_at` takes.
        weights_only: False unpickles the file, which runs any code inside.

    Returns:
        None if the file says nothing.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be downloaded.
        ValueError: it is not a checkpoint, holds code, or describes its model wrongly.
    """
    name = fspath(address)
    read = partial(read_checkpoint, name=name, weights_only=weights_only, memory_mapped=True)
    return read_at(name, lambda file: ModelDescription.from_checkpoint(read(file), name))
