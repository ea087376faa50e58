"""Sums that the dense methods' losses are made of; the caller divides them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SMOOTH_L1_BETA = 1 / 9
"""Errors below it, in cells, count quadratically (DEKR's published code)."""


def smooth_l1_sum(predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of smooth L1 losses; all three (...) of shapes that broadcast."""
    errors = F.smooth_l1_loss(predicted, targets, beta=SMOOTH_L1_BETA, reduction="none")
    return (errors * weights).sum()


def squared_error_sum(predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of squared errors; all three (...) of shapes that broadcast."""
    return ((predicted - targets).square() * weights).sum()
