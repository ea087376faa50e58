"""Local maxima of score maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_PEAK_VALUE = 0.01
"""Peaks must be higher (DEKR's published code)."""


def kernel_for_size(size: tuple[int, int]) -> int:
    """Cells that a peak must be the largest of, along each axis, by the size of the map (DEKR)."""
    mean = sum(size) / 2
    if mean > 300:
        return 7
    return 5 if mean > 200 else 3


def find_peaks(scores: Tensor, *, kernel: int, max_peaks: int) -> Tensor:
    """Finds the cells of maps that no neighbor exceeds, highest first.

    Cells of one value come in row-major order.

    Args:
        scores: (C, H, W); each map is searched alone.
        kernel: odd, the size of the neighborhood.
        max_peaks: of every map.

    Returns:
        (n, 3) int64: map, row and column; map after map.
    """
    highest = F.max_pool2d(scores, kernel, stride=1, padding=kernel // 2)
    is_peak = (scores == highest) & (scores > MIN_PEAK_VALUE)
    by_value = scores[is_peak].argsort(descending=True, stable=True)
    peaks = is_peak.nonzero()[by_value]
    peaks = peaks[peaks[:, 0].argsort(stable=True)]
    return torch.cat([of_map[:max_peaks] for of_map in peaks.split(_count(is_peak))])


def spread_cells(scores: Tensor, count: int) -> Tensor:
    """So many cells of every one of (C, H, W) maps, far from each other, as :func:`find_peaks`."""
    num_maps, height, width = scores.shape
    cells = torch.linspace(0, height * width - 1, count, device=scores.device).long()
    maps = torch.arange(num_maps, device=scores.device).repeat_interleave(count)
    rows, columns = (cells // width).repeat(num_maps), (cells % width).repeat(num_maps)
    return torch.stack([maps, rows, columns], dim=1)


def _count(is_peak: Tensor) -> list[int]:
    return is_peak.flatten(1).sum(dim=1).tolist()
