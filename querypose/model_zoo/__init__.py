"""Configs and trained weights that come with the package, in the manner of Detectron2's model zoo.

Weights have addresses such as ``querypose://lite0.pth``; see docs/models.md for their training.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from detectron2.utils.file_io import PathHandler, PathManager

from querypose.config import config_names, packaged_config_file, read_config

__all__ = ["DEFAULT_MODEL", "config_names", "get_config", "get_config_file", "model_names"]

DEFAULT_MODEL = "lite0"
"""The model that is used by default."""

_FOLDER = Path(__file__).parent
_PREFIX = "querypose://"


def model_names() -> list[str]:
    """Names of the configs whose trained weights come with the package, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.pth"))


def get_config_file(name: str) -> str:
    """The path of a packaged config, for ``cfg.merge_from_file``.

    Args:
        name: one of :func:`config_names`, with or without ".yaml", or of a LazyConfig, such as
            "lazy/querypose_r50_light_3x.py".

    Raises:
        FileNotFoundError: there is no such config; the message suggests the closest names.
    """
    return str(packaged_config_file(name))


def get_config(name: str = DEFAULT_MODEL) -> Any:
    """A packaged config; if it has packaged weights, ``MODEL.WEIGHTS`` is their path.

    Args:
        name: one of :func:`config_names`, with or without ".yaml", or of a LazyConfig.

    Returns:
        A ``CfgNode``; of a LazyConfig, the ``DictConfig`` that ``LazyConfig.load`` returns.

    Raises:
        FileNotFoundError: there is no such config; the message suggests the closest names.
    """
    config_file = get_config_file(name)
    if config_file.endswith(".py"):
        return LazyConfig.load(config_file)
    cfg = read_config(config_file)
    if cfg.MODEL.WEIGHTS.startswith(_PREFIX):
        cfg.MODEL.WEIGHTS = PathManager.get_local_path(cfg.MODEL.WEIGHTS)
    return cfg


class _PackagedWeights(PathHandler):
    """Lets Detectron2 find the packaged weights by their addresses."""

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
        return os.fspath(_FOLDER / path.removeprefix(_PREFIX))

    def _isfile(self, path: str, **_: Any) -> bool:
        return os.path.isfile(self._get_local_path(path))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> Any:
        return PathManager.open(self._get_local_path(path), mode, buffering)


PathManager.register_handler(_PackagedWeights())
