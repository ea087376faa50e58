"""Mappers by name, so that a config chooses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

MAPPER_REGISTRY = Registry("POSE_MAPPER")
MAPPER_REGISTRY.__doc__ = """
Classes that are built of a config (``is_train`` is True) and map one dataset dict to what a model
trains on. ``INPUT.MAPPER`` names one.
"""


def build_train_mapper(cfg: CfgNode) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The mapper that ``INPUT.MAPPER`` names.

    Raises:
        ValueError: no mapper is registered under this name.
    """
    name = cfg.INPUT.MAPPER
    if name not in MAPPER_REGISTRY:
        known = sorted(known for known, _ in MAPPER_REGISTRY)
        raise ValueError(f"INPUT.MAPPER is one of {', '.join(known)}, not {name!r}.")
    return MAPPER_REGISTRY.get(name)(cfg, is_train=True)
