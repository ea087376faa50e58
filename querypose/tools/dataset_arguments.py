"""Arguments that the commands for datasets share."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from querypose.config import default_config, merge_options, read_config
from querypose.config_arguments import add_config_file, add_config_options
from querypose.data.datasets.coco import register_configured_datasets


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that register datasets from a config."""
    add_config_file(parser, "registers the datasets in its DATASETS.REGISTER")
    add_config_options(parser)


def register_datasets(arguments: argparse.Namespace) -> CfgNode | None:
    """Registers the datasets that the command line names, and returns the config.

    Without a config file, the options change the defaults; None if there are none, either.

    Raises:
        FileNotFoundError: the config or an annotation file does not exist.
        ValueError: the config or a dataset in it is invalid.
    """
    if arguments.config_file is not None:
        cfg = read_config(arguments.config_file, arguments.opts)
    elif arguments.opts:
        cfg = default_config()
        merge_options(cfg, arguments.opts)
    else:
        return None
    register_configured_datasets(cfg)
    return cfg


def registered_metadata(name: str) -> Metadata:
    """The metadata of a dataset.

    Raises:
        ValueError: no dataset is registered under this name.
    """
    if name not in DatasetCatalog:
        raise ValueError(f"No dataset is registered as {name!r}; see DATASETS.REGISTER.")
    return MetadataCatalog.get(name)
