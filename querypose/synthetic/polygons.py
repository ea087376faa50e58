"""Convex polygons: (V, 2) corners in order, in image coordinates (pixels) unless said otherwise.

Everything that is drawn, in the painted image and in the label buffer, is a convex polygon.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

_CIRCLE_ANGLES = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
CIRCLE = np.stack([np.cos(_CIRCLE_ANGLES), np.sin(_CIRCLE_ANGLES)], axis=1)
"""(20, 2) corners on the unit circle."""

_DISC_ANGLES = np.arange(0.0, 2.0 * math.pi, math.pi / 8.0)
_DISC = np.stack([np.cos(_DISC_ANGLES), np.sin(_DISC_ANGLES)], axis=1)
_ARC = np.linspace(-1.0, 1.0, 9)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """(4, 2) corners, clockwise from the top left."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def disc(center: Iterable[float], radius: float | tuple[float, float]) -> np.ndarray:
    """(16, 2) corners of a disc, or of an upright ellipse where ``radius`` is a pair (x, y)."""
    return np.asarray(center) + np.multiply(_DISC, radius)


def convex_hull(points: np.ndarray) -> np.ndarray:
    """(V, 2) convex hull of (N, 2) points."""
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(float)


def loft(rings: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
    """Hulls of neighboring projected cross-sections, (V, 2) each."""
    return [convex_hull(np.concatenate((rings[i], rings[i + 1]))) for i in range(len(rings) - 1)]


def grow(polygon: np.ndarray, distance: float) -> np.ndarray:
    """``polygon`` with its corners moved outwards from its center by about ``distance`` pixels."""
    offset = polygon - polygon.sum(axis=0) / len(polygon)
    length = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)[:, None]
    return polygon + offset * np.maximum(distance / length, -0.9)


def capsule_polygons(
    starts: np.ndarray, start_radii: np.ndarray, ends: np.ndarray, end_radii: np.ndarray
) -> np.ndarray:
    """Convex hulls of pairs of discs (tapered capsules).

    Args:
        starts: (N, 2) centers of the first discs.
        start_radii: (N,).
        ends: (N, 2) centers of the second discs.
        end_radii: (N,).

    Returns:
        (N, 18, 2) corners in order round each hull, in the unit of the input.
    """
    along = ends - starts
    length = np.hypot(along[:, 0], along[:, 1])
    heading = np.arctan2(along[:, 1], along[:, 0])[:, None]
    # The clip makes a disc that swallows the other stand for the whole hull.
    ratio = np.clip((start_radii - end_radii) / np.maximum(length, 1e-6), -1.0, 1.0)
    tangent = np.arccos(ratio)[:, None]
    # Nine corners round the far end of either disc, from tangent point to tangent point.
    angles = np.concatenate([tangent * _ARC, np.pi + (np.pi - tangent) * _ARC], axis=1) + heading
    radii = np.repeat(np.stack([end_radii, start_radii], axis=1), len(_ARC), axis=1)
    polygons = np.repeat(np.stack([ends, starts], axis=1), len(_ARC), axis=1)
    polygons[..., 0] += radii * np.cos(angles)
    polygons[..., 1] += radii * np.sin(angles)
    return polygons
