"""Titled tiles of maps over images, which several drawings are made of."""

from __future__ import annotations

import cv2
import numpy as np

from querypose.visualization.labels import Color, draw_text

GAP = 4
"""White pixels at the right of a tile and below it."""

_TITLE_HEIGHT = 24
_TITLE_COLOR = (32, 32, 32)
_OPACITY = 0.75


def overlay(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Blends a map of the size of an image into it; higher values are more opaque.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (H, W), scaled by their own maximum.
    """
    strength = (values / max(values.max(), 1e-12)).clip(0, 1)
    heat = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    opacity = _OPACITY * np.sqrt(strength)[..., None]
    return (image * (1 - opacity) + heat * opacity).round().astype(np.uint8)


def titled(image: np.ndarray, title: str, color: Color = _TITLE_COLOR) -> np.ndarray:
    """An image with a title above it, on this color, and a gap at its right and below it."""
    height, width = image.shape[:2]
    tile = np.full((height + _TITLE_HEIGHT + GAP, width + GAP, 3), 255, np.uint8)
    draw_text(tile[:, :width], title, (0, 0), 0.4, color)
    tile[_TITLE_HEIGHT : _TITLE_HEIGHT + height, :width] = image
    return tile
