"""Centers of part attention maps, and the loss of these maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Keeps the logarithm finite.
_SMALLEST_ATTENTION = 1e-12


def attention_centers(attention: Tensor) -> Tensor:
    """Centers of mass of attention maps, box-relative: 0 is the center of the box, +-0.5 its edges.

    Args:
        attention: (R, P, H, W), each map summing to 1.

    Returns:
        (R, P, 2) x and y, float32.
    """
    attention = attention.float()
    height, width = attention.shape[-2:]
    x = (torch.arange(width, device=attention.device) + 0.5) / width - 0.5
    y = (torch.arange(height, device=attention.device) + 0.5) / height - 0.5
    columns, rows = attention.sum(dim=-2), attention.sum(dim=-1)
    return torch.stack([(columns * x).sum(dim=-1), (rows * y).sum(dim=-1)], dim=-1)


def attention_loss(attention: Tensor, points: Tensor) -> Tensor:
    """Cross entropy of attention maps with one-hot targets (Mask R-CNN, section 5).

    A target between cells is shared bilinearly among its four neighbors, so that the center of the
    best map is the target itself.

    Args:
        attention: (M, H, W), each map summing to 1.
        points: targets, (M, 2) x and y, box-relative: 0 is the center of the box, +-0.5 its edges.

    Returns:
        The sum over the maps.
    """
    log_attention = attention.float().clamp(min=_SMALLEST_ATTENTION).log()
    # The edges are at +-1 for `grid_sample`.
    sampled = F.grid_sample(
        log_attention[:, None],
        2 * points[:, None, None],
        padding_mode="border",
        align_corners=False,
    )
    return -sampled.sum()
