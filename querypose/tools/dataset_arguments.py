"""What the commands that work on a dataset have in common."""

from __future__ import annotations

import argparse

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

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


def registered_metadata(name: str) -> Metadata:
    """The metadata of a dataset that a command is given.

    Raises:
        ValueError: no dataset is registered under this name.
    """
    if name not in DatasetCatalog:
        raise ValueError(f"No dataset is registered as {name!r}; see DATASETS.REGISTER.")
    return MetadataCatalog.get(name)
