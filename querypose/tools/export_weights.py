"""Makes checkpoints small: ``python -m querypose.tools.export_weights model_final.pth lite0.pth``.

Keeps the weights, in half precision, and what the checkpoint says of its model; drops optimizer and
schedule. Loading restores the types.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor

from querypose.atomic_files import replace_file
from querypose.checkpoint.description import ModelDescription
from querypose.checkpoint.download import read_at
from querypose.checkpoint.files import is_state_dict, read_checkpoint
from querypose.config import config_from_json, config_to_json, read_config
from querypose.config_arguments import add_config_file
from querypose.data.datasets.coco import (
    register_configured_datasets,
    trained_category_ids,
    trained_class_names,
)
from querypose.modeling.pose_model import skeleton_from_config


def compact(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts float tensors to half precision, except those with values out of its range."""
    halved = {name: value.half() for name, value in state_dict.items()}
    return {
        name: halved[name] if value.is_floating_point() and halved[name].isfinite().all() else value
        for name, value in state_dict.items()
    }


def export_weights(
    checkpoint: str | PathLike[str],
    output: Path,
    *,
    averaged: bool,
    description: ModelDescription | None = None,
) -> None:
    """Writes a checkpoint's weights in half precision.

    Args:
        checkpoint: of a training; a path or URL.
        output: a ``.pth`` file.
        averaged: whether to export the moving average of the weights (``SOLVER.EMA``).
        description: what the file shall say of its model; None keeps what the checkpoint says.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        OSError: the checkpoint cannot be downloaded.
        ValueError: the checkpoint cannot be read or lacks the weights.
    """
    address, key = fspath(checkpoint), "ema" if averaged else "model"
    content = read_at(address, partial(read_checkpoint, name=address))
    weights = content.get(key)
    if not is_state_dict(weights):
        raise ValueError(f"{address} holds no weights under '{key}'.")
    # PyTorch's AveragedModel stores a prefix and the number of updates.
    weights = {n.removeprefix("module."): v for n, v in weights.items() if n != "n_averaged"}
    description = description or ModelDescription.from_checkpoint(content, address)
    if description:
        description = replace(description, config=_without_average(description.config, address))
    exported = {"model": compact(weights), **(description.fields() if description else {})}
    replace_file(output, lambda file: torch.save(exported, file))


def _without_average(config: str, name: str) -> str:
    """A config that reads the exported weights, whichever of a training's they are."""
    cfg = config_from_json(config, name)
    if not cfg.TEST.EMA:
        return config
    cfg.TEST.EMA = False
    return config_to_json(cfg)


def describe_by_config(config_file: str) -> ModelDescription:
    """The description of a model by the config that it was trained with.

    Raises:
        FileNotFoundError: the config or a label file that it names does not exist.
        ValueError: the config is invalid, or declares no keypoints.
    """
    cfg = read_config(config_file)
    register_configured_datasets(cfg)
    skeleton = skeleton_from_config(cfg)
    return ModelDescription(
        config_to_json(cfg), skeleton, trained_category_ids(cfg), trained_class_names(cfg)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.export_weights",
        description="Write only the weights of a checkpoint, in half precision.",
    )
    parser.add_argument("checkpoint", help="path or URL")
    parser.add_argument("output", type=Path)
    parser.add_argument("--ema", action="store_true", help="export the moving average (SOLVER.EMA)")
    add_config_file(
        parser, "of a checkpoint that does not say which model it is of: the written file says it"
    )
    arguments = parser.parse_args(argv)
    try:
        description = None
        if arguments.config_file:
            description = describe_by_config(arguments.config_file)
        export_weights(
            arguments.checkpoint,
            arguments.output,
            averaged=arguments.ema,
            description=description,
        )
    except (OSError, ValueError) as error:
        sys.exit(f"export_weights: {error}")


if __name__ == "__main__":
    main()
