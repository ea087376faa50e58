"""What precedes every training and evaluation."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from querypose.data.datasets.coco import (
    check_configured_datasets,
    register_configured_datasets,
)


def set_up(cfg: CfgNode, args: argparse.Namespace | None = None) -> None:
    """Freezes a config, registers the datasets that it lists and sets up logging.

    Args:
        cfg: read completely.
        args: of the command line, which are logged.

    Raises:
        OSError: a file of a dataset cannot be read.
        ValueError: a dataset is unknown or does not fit the config.
    """
    cfg.freeze()
    # This package's log lines go to log.txt, too, as Detectron2's do.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="querypose")
    register_configured_datasets(cfg)
    check_configured_datasets(cfg)
    default_setup(cfg, args or argparse.Namespace())
