"""What a dense model sees: its maps over the image, and the poses that its persons are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from querypose.visualization.labels import draw_text
from querypose.visualization.visualizer import person_color

_DARK = (32, 32, 32)
_OPACITY = 0.75
_GAP = 4
_LABEL_HEIGHT = 24
# Coordinates in sixteenths of a pixel, as OpenCV takes them.
_FRACTION_BITS = 4


def draw_maps(
    image_rgb: np.ndarray,
    output: Mapping[str, Any],
    edges: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Lays a model's maps over an image, one beside the other.

    Args:
        image_rgb: (H, W, 3) uint8.
        output: what a model answers to ``return_maps``: ``instances``; ``maps``, (h, w) by their
            names; perhaps ``proposals``, (n, K, 2) in pixels of the image, and
            ``proposal_persons``, (n,): those of the instances are drawn in a tile of their own,
            those of one person in one color.
        edges: pairs of keypoints that a line connects.

    Returns:
        (H', W', 3) uint8 RGB. Every map is scaled by its own maximum.
    """
    tiles = [
        _titled(_overlay(image_rgb, heat.cpu().numpy()), name)
        for name, heat in output["maps"].items()
    ]
    if "proposals" in output:
        num_persons = len(output["instances"])
        used = output["proposal_persons"] < num_persons
        proposals = output["proposals"][used].cpu().numpy()
        persons = output["proposal_persons"][used].tolist()
        title = f"proposals: {len(proposals)}, persons: {num_persons}"
        tiles.append(_titled(_proposals(image_rgb, proposals, persons, edges), title))
    return np.concatenate(tiles, axis=1)


def _overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blends a map into an image, the more the higher its value."""
    height, width = image.shape[:2]
    # Cell j of a map of w cells lies on pixel j * width / w.
    matrix = np.array([[width / heat.shape[1], 0, 0], [0, height / heat.shape[0], 0]])
    values = cv2.warpAffine(heat.astype(np.float32), matrix, (width, height))
    strength = (values / max(values.max(), 1e-12)).clip(0, 1)
    colors = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    opacity = _OPACITY * np.sqrt(strength)[..., None]
    return (image * (1 - opacity) + colors * opacity).round().astype(np.uint8)


def _proposals(
    image: np.ndarray,
    proposals: np.ndarray,
    persons: Sequence[int],
    edges: Sequence[tuple[int, int]],
) -> np.ndarray:
    drawing = image.copy()
    points = (proposals - 0.5) * 2**_FRACTION_BITS
    limit = 2**_FRACTION_BITS * 4 * max(image.shape)
    points = points.clip(-limit, limit).round().astype(int)
    for pose, person in zip(points, persons, strict=True):
        for start, end in edges:
            line = tuple(pose[start]), tuple(pose[end])
            cv2.line(drawing, *line, person_color(person), 1, cv2.LINE_AA, _FRACTION_BITS)
    return drawing


def _titled(tile: np.ndarray, title: str) -> np.ndarray:
    """A tile with its name above it and a gap at the right."""
    height, width = tile.shape[:2]
    framed = np.full((height + _LABEL_HEIGHT, width + _GAP, 3), 255, np.uint8)
    draw_text(framed[:, :width], title, (0, 0), 0.4, _DARK)
    framed[_LABEL_HEIGHT:, :width] = tile
    return framed
