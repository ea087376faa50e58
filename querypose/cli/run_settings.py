"""What must not change while a collection is predicted in several runs."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode

from querypose.checkpoint.download import read_at
from querypose.cli.collection import Collection
from querypose.engine.kept_settings import digest_of
from querypose.engine.resumed_settings import Settings, settings_by_key
from querypose.version import __version__

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
        "content of the weights": read_at(cfg.MODEL.WEIGHTS, digest_of),
        "--shard-size": args.shard_size,
        "--confidence-threshold": (
            cfg.DEMO.CONFIDENCE_THRESHOLD if threshold is None else threshold
        ),
        "--precision": precision or cfg.MODEL.INFERENCE.PRECISION,
        **settings,
    }
