"""Gaussian heat maps with the windows outside of which they are zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw_gaussians(
    centers: Tensor, present: Tensor, size: tuple[int, int], sigma: float
) -> tuple[Tensor, Tensor]:
    """Draws ``exp(-d^2 / (2 sigma^2))`` around N persons' centers; where they overlap, the largest.

    A window reaches ``3 sigma + 1`` to either side: from column ``floor(x - 3 sigma - 1)`` to
    ``ceil(x + 3 sigma + 2) - 1``, rows alike, as in DEKR's and PINet's published code.

    Args:
        centers: (N, C, 2), x and y in cells; they may lie outside the map.
        present: (N, C) bool, which of them are drawn.
        size: height and width of the maps.
        sigma: in cells.

    Returns:
        The maps (C, H, W) in 0..1, and whether a cell is in any window, (C, H, W).
    """
    (height, width), num_maps = size, centers.shape[1]
    reach = 3 * sigma + 1
    start, end = (centers - reach).floor(), (centers + reach + 1).ceil()
    offsets = torch.arange(math.ceil(2 * reach) + 2, device=centers.device)
    cells = start[..., None] + offsets  # (N, C, 2, window)
    inside = (cells < end[..., None]) & (cells >= 0)
    inside &= cells < cells.new_tensor([[width], [height]])
    values = torch.exp(-(cells - centers[..., None]).square() / (2 * sigma**2))

    columns, rows = cells.nan_to_num().clamp(min=0).long().unbind(dim=2)
    inside = inside[:, :, 1, :, None] & inside[:, :, 0, None, :] & present[..., None, None]
    channels = torch.arange(num_maps, device=centers.device)[:, None, None]
    indices = ((channels * height + rows[..., None]) * width + columns[..., None, :])[inside]
    values = (values[:, :, 1, :, None] * values[:, :, 0, None, :])[inside]
    maps = centers.new_zeros(num_maps * height * width)
    maps.scatter_reduce_(0, indices, values, "amax")
    window = torch.zeros_like(maps, dtype=torch.bool)
    window[indices] = True
    return maps.view(num_maps, height, width), window.view(num_maps, height, width)
