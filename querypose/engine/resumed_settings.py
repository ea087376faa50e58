"""Compares the config of a resumed training with the one it was started with."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode

from querypose.config.reading import leaves

# The other sections, of evaluation and output, do not affect a checkpoint.
_SECTIONS = ("DATALOADER", "DATASETS", "INPUT", "MODEL", "SEED", "SOLVER")
# The checkpoint's values hold: it continues its stream of data and its weights.
_KEPT = ("SEED", "MODEL.WEIGHTS")
# An optimizer cannot continue from the state of another.
_REFUSED = ("SOLVER.OPTIMIZER",)

Settings = dict[str, Any]


def training_settings(cfg: CfgNode) -> Settings:
    """The settings that affect a training, by key, as plain values for its checkpoints."""
    return settings_by_key(cfg, _SECTIONS)


def settings_by_key(cfg: CfgNode, sections: Iterable[str]) -> Settings:
    """The values in some top-level sections of a config, by full key, as plain values."""
    values = leaves({name: cfg[name] for name in sections})
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    """Replaces tuples by lists; a config does not distinguish them."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def resume_settings(saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> Settings:
    """Compares a config with the one of the checkpoint, and warns of every difference.

    The new values hold, except for the seed and the weights, which the checkpoint already has.

    Args:
        saved: the checkpoint's settings; None if it has none.
        settings: the config's settings.

    Returns:
        The settings that hold from here on.

    Raises:
        ValueError: a setting changed that cannot change within a training.
    """
    log = logging.getLogger(__name__)
    if saved is None:
        log.warning(
            "The checkpoint does not contain the settings it was trained with: the config's hold "
            "from here on, except for SEED and the weights."
        )
        return dict(settings)
    changed = [key for key in settings if key in saved and saved[key] != settings[key]]
    for key in _REFUSED:
        if key in changed:
            raise ValueError(
                f"{key} is {settings[key]!r}, but the checkpoint to resume from was trained with "
                f"{saved[key]!r} and has the state of that: set it back, or start a new training "
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
