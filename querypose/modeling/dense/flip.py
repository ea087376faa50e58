"""Test-time flip: the mirrored image's answers, put into the image's own frame.

A mirrored image is moved left by ``STRIDE - 1`` pixels. Its cell ``x`` then shows exactly what the
image's own map shows at ``W - 1 - x`` (DEKR's published code).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from querypose.modeling.dense.cells import STRIDE


def mirror_images(images: Tensor) -> Tensor:
    """Mirrors (B, 3, H, W) normalized, padded images; the columns that become vacant are zero."""
    shift = STRIDE - 1
    return F.pad(images.flip(-1)[..., shift:], (0, shift))


def average_maps(maps: Tensor, mirrored: Tensor, channels: Sequence[int] | None = None) -> Tensor:
    """Means of two views' (B, C, H, W) maps.

    Args:
        maps: of the image.
        mirrored: of the mirrored image.
        channels: for every channel, the one that shows the same in the mirrored image; None where
            each is its own.
    """
    unmirrored = mirrored.flip(-1)
    if channels is not None:
        unmirrored = unmirrored[:, list(channels)]
    return (maps + unmirrored) / 2


def mirror_poses(poses: Tensor, flip_indices: Sequence[int], width: int) -> Tensor:
    """Mirrors (..., K, 2) poses, in cells of a map of ``width`` columns, and swaps their sides."""
    x, y = poses[..., list(flip_indices), :].unbind(dim=-1)
    return torch.stack([width - 1 - x, y], dim=-1)
