"""Makes checkpoints small: ``python -m querypose.tools.export_weights model_final.pth lite0.pth``.

Keeps the weights, in half precision, and what the checkpoint says of its model; drops optimizer and
schedule. Loading restores the types.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor

from querypose.atomic_files import replace_file
from querypose.checkpoint.description import ModelDescription
from querypose.checkpoint.download import read_at
from querypose.checkpoint.files import is_state_dict, read_checkpoint


def compact(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts float tensors to half precision, except those with values out of its range."""
    halved = {name: value.half() for name, value in state_dict.items()}
    return {
        name: halved[name] if value.is_floating_point() and halved[name].isfinite().all() else value
        for name, value in state_dict.items()
    }


def export_weights(checkpoint: str | PathLike[str], output: Path, *, averaged: bool) -> None:
    """Writes a checkpoint's weights in half precision.

    Args:
        checkpoint: of a training; a path or URL.
        output: a ``.pth`` file.
        averaged: whether to export the moving average of the weights (``SOLVER.EMA``).

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
    description = ModelDescription.from_checkpoint(content, address)
    exported = {"model": compact(weights), **(description.fields() if description else {})}
    replace_file(output, lambda file: torch.save(exported, file))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command, by default with the arguments of the process."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.export_weights",
        description="Write only the weights of a checkpoint, in half precision.",
    )
    parser.add_argument("checkpoint", help="path or URL")
    parser.add_argument("output", type=Path)
    parser.add_argument("--ema", action="store_true", help="export the moving average (SOLVER.EMA)")
    arguments = parser.parse_args(argv)
    try:
        export_weights(arguments.checkpoint, arguments.output, averaged=arguments.ema)
    except (OSError, ValueError) as error:
        sys.exit(f"export_weights: {error}")


if __name__ == "__main__":
    main()
