"""Local maxima of score maps."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from querypose.modeling.finite import refuse_infinite

MIN_PEAK_VALUE = 0.01
"""Peaks must be higher (DEKR's published code)."""

# Means of height and width, in cells, above which a peak must be the highest of more cells (DEKR).
_MEDIUM, _LARGE = 200, 300


def kernel_for_size(size: tuple[int, int]) -> int:
    """Cells that a peak must be the largest of, along each axis, by the size of the map."""
    mean = sum(size) / 2
    if mean > _LARGE:
        return 7
    return 5 if mean > _MEDIUM else 3


def highest_by_size(scores: Tensor) -> Tensor:
    """The highest value around every cell of (..., H, W) maps.

    The kernel is that of :func:`kernel_for_size`, chosen when an exported graph runs.
    """
    three = F.max_pool2d(scores, 3, stride=1, padding=1)
    five = F.max_pool2d(three, 3, stride=1, padding=1)
    seven = F.max_pool2d(five, 3, stride=1, padding=1)
    height, width = scores.shape[-2:]
    kernel_size = scores.new_ones(height).sum() + scores.new_ones(width).sum()
    return torch.where(
        kernel_size > 2 * _LARGE, seven, torch.where(kernel_size > 2 * _MEDIUM, five, three)
    )


class FixedPeaks(NamedTuple):
    """The k highest peaks of each of (..., H, W) maps.

    Attributes:
        values: (..., k), falling; 0 where there are fewer peaks.
        rows: (..., k) int64.
        columns: (..., k) int64.
    """

    values: Tensor
    rows: Tensor
    columns: Tensor

    def indices(self) -> list[Tensor]:
        """Flat indices of all peaks along the axes of the maps, rows and columns last."""
        axes = [torch.arange(length, device=self.rows.device) for length in self.rows.shape]
        *leading, _ = torch.meshgrid(*axes, indexing="ij")
        return [index.flatten() for index in (*leading, self.rows, self.columns)]


def fixed_peaks(scores: Tensor, highest: Tensor, count: int) -> FixedPeaks:
    """Finds as many peaks as :func:`find_peaks`, in tensors of fixed sizes, for export.

    Args:
        scores: (..., H, W).
        highest: the highest value around every cell, (..., H, W).
        count: k.
    """
    values = torch.where(_are_peaks(scores, highest), scores, 0)
    values, cells = values.flatten(-2).topk(count, dim=-1)
    width = scores.shape[-1]
    rows = cells // width
    return FixedPeaks(values, rows, cells - rows * width)


def _are_peaks(scores: Tensor, highest: Tensor) -> Tensor:
    return (scores == highest) & (scores > MIN_PEAK_VALUE)


def find_peaks(scores: Tensor, *, kernel: int, max_peaks: int) -> Tensor:
    """Finds the cells of maps that no neighbor exceeds, highest first.

    Cells of one value come in row-major order.

    Args:
        scores: (C, H, W); each map is searched alone.
        kernel: odd, the size of the neighborhood.
        max_peaks: of every map.

    Returns:
        (n, 3) int64: map, row and column; map after map.

    Raises:
        FloatingPointError: a score is NaN or infinite.
    """
    refuse_infinite("score maps", scores)
    highest = F.max_pool2d(scores, kernel, stride=1, padding=kernel // 2)
    is_peak = _are_peaks(scores, highest)
    by_value = scores[is_peak].argsort(descending=True, stable=True)
    peaks = is_peak.nonzero()[by_value]
    peaks = peaks[peaks[:, 0].argsort(stable=True)]
    return torch.cat([of_map[:max_peaks] for of_map in peaks.split(_count(is_peak))])


def spread_cells(scores: Tensor, count: int) -> Tensor:
    """Cells far from each other, ``count`` of every (C, H, W) map, as from :func:`find_peaks`."""
    num_maps, height, width = scores.shape
    cells = torch.linspace(0, height * width - 1, count, device=scores.device).long()
    maps = torch.arange(num_maps, device=scores.device).repeat_interleave(count)
    rows, columns = (cells // width).repeat(num_maps), (cells % width).repeat(num_maps)
    return torch.stack([maps, rows, columns], dim=1)


def _count(is_peak: Tensor) -> list[int]:
    return is_peak.flatten(1).sum(dim=1).tolist()
