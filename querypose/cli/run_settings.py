"""What must not change while a collection is predicted in several runs."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from querypose.atomic_files import replace_file
from querypose.checkpoint.download import read_at
from querypose.cli.collection import Collection
from querypose.engine.resumed_settings import settings_by_key
from querypose.version import __version__

Settings = dict[str, Any]

_SECTIONS = ("INPUT", "MODEL", "TEST")
# Another place of the same weights, and another device, change nothing but rounding.
_FREE = ("MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.WEIGHTS_ONLY")


def run_settings(cfg: CfgNode, args: argparse.Namespace, collection: Collection) -> Settings:
    """All that the results of a collection depend on, as plain values by name.

    Device, batch size and the number of processes are not among them.

    Args:
        cfg: of the model; ``MODEL.WEIGHTS`` is there.
        args: of the command.
        collection: what is predicted.

    Raises:
        OSError: the weights cannot be read.
    """
    threshold, precision = args.confidence_threshold, args.precision
    settings = settings_by_key(cfg, _SECTIONS)
    for key in _FREE:
        settings.pop(key, None)
    return {
        "version of querypose": __version__,
        "collection": collection.digest(),
        "content of the weights": read_at(cfg.MODEL.WEIGHTS, _digest),
        "--shard-size": args.shard_size,
        "--confidence-threshold": (
            cfg.DEMO.CONFIDENCE_THRESHOLD if threshold is None else threshold
        ),
        "--precision": precision or cfg.MODEL.INFERENCE.PRECISION,
        **settings,
    }


def begin_or_continue(file: Path, settings: Settings) -> None:
    """Compares settings with those of the first run, or writes them if this is the first.

    Args:
        file: where they are kept.
        settings: plain values by name.

    Raises:
        ValueError: they differ, or the file holds none.
    """
    settings = json.loads(json.dumps(settings))
    if not file.is_file():
        text = json.dumps(settings, indent=1)
        replace_file(file, lambda target: target.write(text.encode()))
        return
    try:
        begun = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} holds no settings: name another --output.") from error
    changed = [name for name in {**settings, **begun} if settings.get(name) != begun.get(name)]
    if changed:
        name, more = changed[0], f" ({len(changed) - 1} more differ)" if len(changed) > 1 else ""
        raise ValueError(
            f"{file.parent} was begun with other settings: {name} is {_shown(settings, name)}, but "
            f"was {_shown(begun, name)}{more}; set it back to continue, or name another --output."
        )


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _shown(settings: Settings, name: str) -> str:
    return f"{settings.get(name)!r:.80}"
