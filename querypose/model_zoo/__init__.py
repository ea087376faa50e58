"""Trained models that come with the package; docs/models.md tells what they were trained on."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode

from querypose.config import read_config

#: What predicts where nothing else is asked for.
DEFAULT_MODEL = "lite0"

_FOLDER = Path(__file__).parent


def model_names() -> list[str]:
    """Names of the models, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.pth"))


def get_config(name: str = DEFAULT_MODEL) -> CfgNode:
    """The config of a model, its ``MODEL.WEIGHTS`` naming the weights.

    Args:
        name: one of :func:`model_names`.

    Raises:
        ValueError: no such model comes with the package.
    """
    if name not in model_names():
        raise ValueError(f"No model {name!r} comes with querypose, only {model_names()}.")
    return read_config(_FOLDER / f"{name}.yaml", ["MODEL.WEIGHTS", str(_FOLDER / f"{name}.pth")])
