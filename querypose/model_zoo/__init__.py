"""Trained models that come with the package; see docs/models.md for their training."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode

from querypose.config import read_config

DEFAULT_MODEL = "lite0"
"""The model that is used by default."""

_FOLDER = Path(__file__).parent


def model_names() -> list[str]:
    """Names of the models, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.pth"))


def get_config(name: str = DEFAULT_MODEL) -> CfgNode:
    """The config of a model, with the path of its weights in ``MODEL.WEIGHTS``.

    Args:
        name: one of :func:`model_names`.

    Raises:
        ValueError: the package has no such model.
    """
    if name not in model_names():
        raise ValueError(f"No model {name!r} comes with querypose, only {model_names()}.")
    return read_config(_FOLDER / f"{name}.yaml", ["MODEL.WEIGHTS", str(_FOLDER / f"{name}.pth")])
