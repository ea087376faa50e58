"""Box-relative coordinates: 0 is the center of the box, +-0.5 its edges."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_boxes(boxes: Tensor, scale: float) -> Tensor:
    """Enlarges (..., 4) xyxy boxes around their centers; at scale 1 it returns them as they are."""
    if scale == 1:
        return boxes
    margin = (boxes[..., 2:] - boxes[..., :2]) * ((scale - 1) / 2)
    return boxes + torch.cat([-margin, margin], dim=-1)


def keypoints_to_box(points: Tensor, boxes: Tensor) -> Tensor:
    """Pixels to box-relative coordinates.

    Args:
        points: (M, K, 2) pixels.
        boxes: (M, 4) xyxy pixels.
    """
    top_left, bottom_right = boxes[:, None, :2], boxes[:, None, 2:]
    return (points - top_left) / (bottom_right - top_left) - 0.5


def keypoints_to_pixels(coordinates: Tensor, boxes: Tensor) -> Tensor:
    """Box-relative coordinates to pixels; the inverse of :func:`keypoints_to_box`.

    Args:
        coordinates: (M, K, 2).
        boxes: (M, 4) xyxy pixels.
    """
    top_left, bottom_right = boxes[:, None, :2], boxes[:, None, 2:]
    return top_left + (coordinates + 0.5) * (bottom_right - top_left)
