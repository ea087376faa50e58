"""What becomes of settings that changed between a training and its resumption."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.config import CfgNode

# The others, of evaluation and output, shape nothing that a checkpoint holds.
_SECTIONS = ("DATALOADER", "DATASETS", "INPUT", "MODEL", "SEED", "SOLVER")
# The checkpoint goes on with its own: its place in the stream of data, and its weights.
_KEPT = ("SEED", "MODEL.WEIGHTS")
# The state of one optimizer means nothing to another.
_REFUSED = ("SOLVER.OPTIMIZER",)

Settings = dict[str, Any]


def training_settings(cfg: CfgNode) -> Settings:
    """The settings that shape a training, by key, as plain values for its checkpoints."""
    return {key: value for name in _SECTIONS for key, value in _leaves(name, cfg[name])}


def _leaves(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, CfgNode):
        for key, value in node.items():
            yield from _leaves(f"{name}.{key}", value)
    else:
        yield name, _plain(node)


def _plain(value: Any) -> Any:
    """Lists in place of tuples: a config means the same by both."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def resume_settings(saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> Settings:
    """Compares a config with the one of the checkpoint, and warns of every difference.

    Nearly all of the new values hold, as no part of a checkpoint's state depends on them.

    Args:
        saved: of the checkpoint; None where it has none.
        settings: of the config.

    Returns:
        The settings that hold from here on.

    Raises:
        ValueError: a setting cannot change within a training.
    """
    log = logging.getLogger(__name__)
    if saved is None:
        log.warning(
            "The checkpoint does not tell with which settings it was trained. Where the config has "
            "others, the config's hold from here on; SEED and weights are the checkpoint's."
        )
        return dict(settings)
    changed = [key for key in settings if key in saved and saved[key] != settings[key]]
    for key in _REFUSED:
        if key in changed:
            raise ValueError(
                f"{key} is {settings[key]!r}, but the checkpoint to resume from was trained with "
                f"{saved[key]!r} and holds the state of that: set it back, or start a new training "
                "from the checkpoint's weights (MODEL.WEIGHTS, another OUTPUT_DIR, no --resume)."
            )
    for key in changed:
        log.warning(
            "%s is %r in the config, but was %r when the checkpoint was saved: the %s holds.",
            key,
            settings[key],
            saved[key],
            "checkpoint's value" if key in _KEPT else "new value",
        )
    return {**settings, **{key: saved[key] for key in _KEPT if key in saved}}
