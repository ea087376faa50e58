"""Detectron2's Swin Transformer for batches of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.modeling.backbone import swin
from torch import Tensor


@contextmanager
def open_swin_batch() -> Iterator[None]:
    """Keeps the batch of Swin backbones open in graphs that are traced meanwhile.

    Detectron2 computes the number of images with ``int``, which tracing turns into a constant. A
    graph of such constants runs with other batches, too, and finds wrong people.
    """
    original = swin.window_reverse
    swin.window_reverse = _join_windows
    try:
        yield
    finally:
        swin.window_reverse = original


def _join_windows(windows: Tensor, window_size: int, height: int, width: int) -> Tensor:
    """Joins (B * windows, window_size, window_size, C) windows to (B, height, width, C) maps."""
    rows, columns = height // window_size, width // window_size
    channels = windows.shape[-1]
    grid = windows.view(-1, rows, columns, window_size, window_size, channels)
    return grid.transpose(2, 3).reshape(-1, height, width, channels)
