"""Bilinear sampling of maps at points between their cells.

Points are in cells, (x, y): at (3, 2) stands the value of column 3 and row 2. Beyond the map all
values are zero, so a point half a cell outside gets half of the border's value. Differentiable in
features and points, and computed in float32 also under autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def extent_of(features: Tensor) -> Tensor:
    """Width and height of (..., H, W) maps, (2,) float32; in an export, symbols stay symbols."""
    height, width = features.shape[-2:]
    one = torch.ones((), device=features.device)
    return torch.stack([one * width, one * height])


def sample_maps(features: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """Samples every map at points of its own.

    Args:
        features: (B, C, H, W).
        points: (B, P, Q, 2).
        mode: "bilinear" or "nearest".

    Returns:
        (B, C, P, Q).
    """
    height, width = features.shape[-2:]
    if height == 1 or width == 1:
        # grid_sample divides by the size less one; a border of zeros changes nothing.
        features = F.pad(features, (0, 1, 0, 1))
    with torch.autocast(features.device.type, enabled=False):
        points = points.float()
        # In this order of operations, both borders are hit exactly.
        grid = points / (extent_of(features) - 1) * 2 - 1
        return F.grid_sample(
            features.float(), grid, mode=mode, padding_mode="zeros", align_corners=True
        )


def sample_points(features: Tensor, points: Tensor, images: Tensor) -> Tensor:
    """Samples a batch of maps at a flat list of point sets.

    Args:
        features: (B, C, H, W).
        points: (M, P, 2).
        images: (M,) int64, the image of each set, ascending.

    Returns:
        (M, P, C).
    """
    return sample_group_points(features, points[:, None], images)[:, 0]


def sample_group_points(
    features: Tensor, points: Tensor, images: Tensor, mode: str = "bilinear"
) -> Tensor:
    """Samples groups of channels, each at points of its own.

    Args:
        features: (B, G * C, H, W), the channels of the first group first.
        points: (M, G, P, 2).
        images: (M,) int64, the image of each set of points, ascending.
        mode: "bilinear" or "nearest".

    Returns:
        (M, G, P, C).
    """
    groups = features.unflatten(1, (points.shape[1], -1))
    if torch.onnx.is_in_onnx_export():
        # Numbers of sets are no symbols. Every image has the same number there.
        by_image = points.unflatten(0, (features.shape[0], -1)).transpose(1, 2)
        sampled = sample_maps(groups.flatten(0, 1), by_image.flatten(0, 1), mode)
        sampled = sampled.unflatten(0, (-1, points.shape[1]))
        return sampled.permute(0, 3, 1, 4, 2).flatten(0, 1)
    counts = torch.bincount(images, minlength=len(features)).tolist()
    samples = [
        sample_maps(maps, image_points.transpose(0, 1), mode)
        for maps, image_points in zip(groups.unbind(), points.split(counts), strict=True)
    ]
    return torch.cat(samples, dim=2).permute(2, 0, 3, 1)
