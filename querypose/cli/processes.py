"""What training and evaluation share on the command line: set-up, processes and errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing.spawn import ProcessException

from querypose.config import find_config_file
from querypose.data.datasets.coco import (
    check_configured_datasets,
    register_configured_datasets,
)
from querypose.engine import launch


def set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Freezes a config, registers the datasets that it lists and sets up logging."""
    cfg.freeze()
    # This package's log lines go to log.txt, too, as Detectron2's do.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="querypose")
    register_configured_datasets(cfg)
    check_configured_datasets(cfg)
    default_setup(cfg, args)


def run_in_processes(
    run: Callable[[argparse.Namespace], object],
    read: Callable[[argparse.Namespace], CfgNode],
    args: argparse.Namespace,
    *,
    command: str,
    way_on: str = "",
) -> None:
    """Runs a function in every process; an error ends the command with one sentence.

    Args:
        run: gets the arguments, in every process.
        read: reads the config that the arguments name.
        args: those of Detectron2's ``default_argument_parser``.
        command: name of the command, for errors.
        way_on: what to do after an interruption.

    Raises:
        SystemExit: with the sentence.
    """
    try:
        if args.config_file:
            # Detectron2 logs the content of the file.
            args.config_file = str(find_config_file(args.config_file))
        launch(run, args, device=read(args).MODEL.DEVICE)
    except (OSError, FloatingPointError, ValueError, ProcessException) as error:
        # An error of another process ends with its message; the log has the whole text.
        sys.exit(f"{command}: {str(error).strip().splitlines()[-1]}")
    except KeyboardInterrupt:
        sys.exit(f"{command}: Interrupted{way_on}.")
