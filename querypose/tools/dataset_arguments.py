"""What the commands that work on a dataset have in common."""

from __future__ import annotations

import argparse

from querypose.config import read_config
from querypose.data.datasets.coco import register_configured_datasets


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Lets a command's user register datasets of their own."""
    parser.add_argument("--config-file", metavar="FILE", help="whose DATASETS.REGISTER to use")
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="config KEY VALUE ...")


def register_datasets(arguments: argparse.Namespace) -> None:
    """Registers the datasets that the command line's config lists.

    Raises:
        FileNotFoundError: there is no such config, or no such file of annotations.
        ValueError: the config or a dataset in it makes no sense.
    """
    if arguments.config_file is not None:
        register_configured_datasets(read_config(arguments.config_file, arguments.opts))
