"""The registry of training mappers; ``INPUT.MAPPER`` names one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

MAPPER_REGISTRY = Registry("POSE_MAPPER")
MAPPER_REGISTRY.__doc__ = """
Registry of mappers, which turn one dataset dict into a model's training input. The registered
class is called with a config and ``is_train=True``.
"""


def build_train_mapper(cfg: CfgNode) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Builds the mapper that ``INPUT.MAPPER`` names.

    Raises:
        ValueError: no mapper is registered under this name.
    """
    name = cfg.INPUT.MAPPER
    if name not in MAPPER_REGISTRY:
        known = sorted(known for known, _ in MAPPER_REGISTRY)
        raise ValueError(f"INPUT.MAPPER must be one of {', '.join(known)}, got {name!r}.")
    return MAPPER_REGISTRY.get(name)(cfg, is_train=True)
