"""Which of the persons who claim a cell owns it."""

from __future__ import annotations

import torch
from torch import Tensor


def owner_map(claims: Tensor, areas: Tensor) -> Tensor:
    """Gives every claimed cell to the smallest of the persons who claim it.

    Of persons of one area the later annotation wins, so the order of the others does not matter.

    Args:
        claims: (N, ...) bool, the cells that each of N persons claims.
        areas: (N,).

    Returns:
        (...) int64, the index of the owner; -1 where nobody claims the cell.
    """
    if len(claims) == 0:
        return torch.full(claims.shape[1:], -1, device=claims.device)
    weakest_first = areas.argsort(descending=True, stable=True)
    strength = torch.empty_like(weakest_first)
    strength[weakest_first] = torch.arange(len(areas), device=areas.device)
    strength = strength.view(-1, *[1] * (claims.dim() - 1))
    strongest = torch.where(claims, strength, -1).amax(dim=0)
    return torch.where(strongest >= 0, weakest_first[strongest.clamp(min=0)], -1)
