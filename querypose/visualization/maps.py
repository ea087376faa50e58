"""What a dense model sees: its maps over the image, and the poses that its persons are made of."""

from __future__ import annotations

import cv2
import numpy as np

from querypose.inference.prediction import PosePrediction
from querypose.visualization.canvas import OpenCVImage, person_color
from querypose.visualization.tiles import overlay, titled


def draw_maps(image_rgb: np.ndarray, prediction: PosePrediction) -> np.ndarray:
    """Lays a model's maps over an image, one beside the other.

    If the model also returns proposals, those of the predicted persons are drawn in a tile of their
    own, those of one person in one color.

    Args:
        image_rgb: (H, W, 3) uint8.
        prediction: of this image, made with ``return_maps=True``.

    Returns:
        (H', W', 3) uint8 RGB. Every map is scaled by its own maximum.

    Raises:
        ValueError: the prediction has no maps.
    """
    output = prediction.maps
    if output is None:
        raise ValueError("Predict with return_maps=True to draw maps.")
    tiles = [
        titled(overlay(image_rgb, _enlarged(values.cpu().numpy(), image_rgb.shape[:2])), name)
        for name, values in output["maps"].items()
    ]
    if "proposals" in output:
        used = output["proposal_persons"] < len(prediction)
        proposals = output["proposals"][used].tolist()
        drawing = OpenCVImage(image_rgb)
        for pose, person in zip(proposals, output["proposal_persons"][used].tolist(), strict=True):
            for start, end in prediction.skeleton.edge_indices:
                drawing.draw_line(pose[start], pose[end], person_color(person), 1)
        title = f"proposals: {len(proposals)}, persons: {len(prediction)}"
        tiles.append(titled(drawing.get_image(), title))
    return np.concatenate(tiles, axis=1)


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (h, w) map at a size, (height, width)."""
    height, width = size
    # Cell j of a map of w cells lies on pixel j * width / w.
    matrix = np.array([[width / values.shape[1], 0, 0], [0, height / values.shape[0], 0]])
    return cv2.warpAffine(values.astype(np.float32), matrix, (width, height))
