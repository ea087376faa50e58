"""Saves and loads batches that led to NaN or infinity, to inspect and replay them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils import comm
from torch import nn

Batch = Sequence[dict[str, Any]]


def save_bad_batch(
    output_dir: str | Path,
    *,
    iteration: int,
    fault: str,
    batches: Sequence[Batch],
    model: nn.Module,
) -> Path:
    """Writes ``bad_batch_ITERATION.pth``; ranks above 0 add their number to the name.

    Args:
        output_dir: folder to write to.
        iteration: the iteration of the batches.
        fault: what was wrong.
        batches: all batches of the iteration, in order.
        model: the model, with its weights before the iteration's step.

    Returns:
        The file's path.
    """
    rank = comm.get_rank()
    suffix = f"_rank{rank}" if rank else ""
    path = Path(output_dir, f"bad_batch_{iteration}{suffix}.pth")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "iteration": iteration,
        "fault": fault,
        "batches": [list(batch) for batch in batches],
        "model": model.state_dict(),
    }
    torch.save(content, path)
    return path


def load_bad_batch(path: str | Path) -> dict[str, Any]:
    """Reads a file of :func:`save_bad_batch`, without running any code in it.

    Returns:
        ``iteration``, ``fault``, ``batches`` (each is an input of the model) and ``model``, the
        state dict to load before.
    """
    with torch.serialization.safe_globals([Instances, Boxes, Keypoints]):
        return torch.load(path, map_location="cpu", weights_only=True)
