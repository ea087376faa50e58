"""What training and evaluation share on the command line: processes and errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from detectron2.config import CfgNode
from torch.multiprocessing.spawn import ProcessException

from querypose.config import find_config_file
from querypose.engine import launch


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
