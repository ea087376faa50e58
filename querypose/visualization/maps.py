"""What a dense model sees: its maps over the image, and the poses that its persons are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from querypose.visualization.canvas import OpenCVImage, person_color
from querypose.visualization.tiles import overlay, titled


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
        titled(overlay(image_rgb, _enlarged(values.cpu().numpy(), image_rgb.shape[:2])), name)
        for name, values in output["maps"].items()
    ]
    if "proposals" in output:
        num_persons = len(output["instances"])
        used = output["proposal_persons"] < num_persons
        proposals = output["proposals"][used].cpu().numpy()
        persons = output["proposal_persons"][used].tolist()
        title = f"proposals: {len(proposals)}, persons: {num_persons}"
        tiles.append(titled(_proposals(image_rgb, proposals, persons, edges), title))
    return np.concatenate(tiles, axis=1)


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (h, w) map at a size, (height, width)."""
    height, width = size
    # Cell j of a map of w cells lies on pixel j * width / w.
    matrix = np.array([[width / values.shape[1], 0, 0], [0, height / values.shape[0], 0]])
    return cv2.warpAffine(values.astype(np.float32), matrix, (width, height))


def _proposals(
    image: np.ndarray,
    proposals: np.ndarray,
    persons: Sequence[int],
    edges: Sequence[tuple[int, int]],
) -> np.ndarray:
    drawing = OpenCVImage(image)
    for pose, person in zip(proposals.tolist(), persons, strict=True):
        for start, end in edges:
            drawing.draw_line(pose[start], pose[end], person_color(person), 1)
    return drawing.get_image()
