"""Affine crops: one warp that zooms, rotates, shifts and crops."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np


class AffineTransform(T.Transform):
    """Warps an image by an affine map; pixels from outside the source are black.

    Args:
        matrix: (2, 3), maps pixel indices of the source to those of the result.
        size: (height, width) of the result.
    """

    def __init__(self, matrix: np.ndarray, size: tuple[int, int]) -> None:
        super().__init__()
        self.matrix = np.asarray(matrix, dtype=float)
        self.size = size

    @property
    def area_factor(self) -> float:
        """The factor by which areas grow."""
        return abs(float(np.linalg.det(self.matrix[:, :2])))

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Warps an (H, W) or (H, W, C) image, bilinearly."""
        # Like Detectron2's rotation, it needs OpenCV where it runs, not where it is imported.
        import cv2

        return cv2.warpAffine(img, self.matrix, self.size[::-1], flags=cv2.INTER_LINEAR)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Warps an (H, W) map of labels, by nearest neighbor."""
        import cv2

        return cv2.warpAffine(segmentation, self.matrix, self.size[::-1], flags=cv2.INTER_NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Maps (N, 2) continuous coordinates; the center of pixel 0 is at 0.5."""
        return (np.asarray(coords) - 0.5) @ self.matrix[:, :2].T + self.matrix[:, 2] + 0.5


class RandomAffineCrop(T.Augmentation):
    """Crops a square of random size, rotation and position, and resizes it.

    The augmentation of dense pose estimators (DEKR, Geng et al., CVPR 2021).

    Args:
        size: side of the result, in pixels.
        zoom: smallest and largest side of the square, relative to the image's short side.
        degrees: largest rotation to either side.
        shift: largest distance between the centers of square and image, in x and in y, relative
            to the square's side.
    """

    def __init__(
        self, *, size: int, zoom: tuple[float, float], degrees: float, shift: float
    ) -> None:
        super().__init__()
        self.size = size
        self.zoom = zoom
        self.degrees = degrees
        self.shift = shift

    def get_transform(self, image: np.ndarray) -> AffineTransform:
        """Draws a crop for an (H, W, 3) image."""
        height, width = image.shape[:2]
        side = min(height, width) * np.random.uniform(*self.zoom)
        degrees = np.random.uniform(-self.degrees, self.degrees)
        shift = side * np.random.uniform(-self.shift, self.shift, 2)
        center = np.array([width / 2, height / 2]) + shift
        return AffineTransform(
            crop_matrix(center, side, degrees, self.size), (self.size, self.size)
        )


def crop_matrix(center: np.ndarray, side: float, degrees: float, size: int) -> np.ndarray:
    """The (2, 3) affine map from a rotated square to an upright one, on pixel indices.

    Args:
        center: (x, y) of the square.
        side: of the square.
        degrees: rotation of the square.
        size: side of the result.
    """
    scale, angle = size / side, np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    linear = scale * rotation
    return np.column_stack([linear, size / 2 - linear @ center])
