"""Uneven light, exposure, white balance, blur and noise of a camera."""

from __future__ import annotations

import cv2
import numpy as np


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Take an image of a painting.

    Args:
        rng: decides the camera's settings and noise.
        image: (H, W, 3) uint8, RGB.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    exposure = rng.uniform(0.78, 1.22) * rng.uniform(0.94, 1.06, 3)
    cells = (rng.uniform(92.0, 140.0, (3, 3, 1)) * exposure).astype(np.uint8)
    light = cv2.resize(cells, (24, 24), interpolation=cv2.INTER_CUBIC)
    light = cv2.resize(light, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    # Spent arrays take the results: fresh memory costs more than the arithmetic.
    image = cv2.multiply(image, light, dst=light, scale=1 / 128)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))
    grain = rng.integers(0, 256, image.shape, dtype=np.uint8)
    strength = rng.uniform(0.0, 0.09)
    veil = rng.uniform(-12.0, 12.0)
    return cv2.addWeighted(image, 1.0, grain, strength, veil - 128.0 * strength, dst=grain)
