"""The head's geometry: ellipsoids in units of the head's radius, center at its middle."""

from __future__ import annotations

import numpy as np

from querypose.synthetic.polygons import CIRCLE, convex_hull
from querypose.synthetic.projection import ProjectedFigure

Triple = tuple[float, float, float]

_ELLIPSOIDS: dict[str, tuple[Triple, Triple]] = {
    "skull": ((0.0, 0.0, 0.0), (0.8, 0.93, 0.9)),
    "jaw": ((0.0, -0.48, 0.2), (0.6, 0.6, 0.6)),
    "scalp": ((0.0, 0.16, -0.1), (0.87, 0.9, 0.9)),
    "curls": ((0.0, 0.2, -0.12), (1.08, 1.08, 1.08)),
    "bun": ((0.0, 0.85, -0.7), (0.42, 0.42, 0.42)),
    "nose": ((0.0, -0.2, 0.93), (0.13, 0.17, 0.17)),
    "bridge": ((0.0, -0.13, 0.92), (0.08, 0.17, 0.15)),
}
"""Ellipsoids of the head by name: center and half axes in head radii, head frame."""
for _side, _sign in (("left", 1.0), ("right", -1.0)):
    _ELLIPSOIDS |= {
        f"{_side}_ear": ((_sign * 0.82, -0.08, -0.02), (0.1, 0.24, 0.16)),
        f"{_side}_ear_inside": ((_sign * 0.84, -0.08, -0.02), (0.07, 0.19, 0.12)),
        f"{_side}_eye": ((_sign * 0.33, 0.04, 0.84), (0.17, 0.12, 0.06)),
        f"{_side}_iris": ((_sign * 0.33, 0.03, 0.88), (0.085, 0.1, 0.04)),
        f"{_side}_brow": ((_sign * 0.34, 0.28, 0.82), (0.2, 0.045, 0.08)),
        f"{_side}_rim": ((_sign * 0.34, 0.03, 0.9), (0.27, 0.22, 0.05)),
        f"{_side}_lens": ((_sign * 0.34, 0.03, 0.9), (0.21, 0.16, 0.04)),
    }
_CENTERS = np.array([center for center, _ in _ELLIPSOIDS.values()])
_HALF_AXES = np.array([half_axes for _, half_axes in _ELLIPSOIDS.values()])


def _sphere_directions() -> np.ndarray:
    """(240, 3) unit vectors spread evenly over the sphere (a Fibonacci lattice)."""
    index = np.arange(240) + 0.5
    height = 1.0 - 2.0 * index / len(index)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.sqrt(1.0 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


SPHERE = _sphere_directions()


def head_places(figure: ProjectedFigure, places: np.ndarray | Triple) -> np.ndarray:
    """(..., 3) places in head radii from the head's center -> (..., 3) in the camera frame."""
    offsets = np.asarray(places) @ figure.axes["head"].T * figure.body.head_radius
    return figure.points["head"] + offsets


def head_contours(figure: ProjectedFigure) -> dict[str, np.ndarray]:
    """(20, 2) projected contour of each of the head's ellipsoids, by name."""
    axes, view = figure.axes["head"], figure.view
    centers = head_places(figure, _CENTERS)
    spread = axes[None, :2] * (_HALF_AXES * figure.body.head_radius)[:, None]
    # The farthest point of an ellipse in direction u is C u / sqrt(u' C u).
    reach = CIRCLE @ (spread @ spread.transpose(0, 2, 1))
    offsets = reach / np.sqrt((reach * CIRCLE).sum(axis=-1, keepdims=True) + 1e-12)
    gains = view.gain(centers[:, 2])[:, None, None]
    contours = view.project(centers)[:, None] + offsets * (1.0, -1.0) * gains
    return dict(zip(_ELLIPSOIDS, contours, strict=True))


def surface_patch(
    figure: ProjectedFigure, ellipsoid: str, towards: np.ndarray, reach: float, swell: float = 1.0
) -> list[np.ndarray]:
    """Visible part of an ellipsoid's surface round a direction.

    Args:
        figure: whose head.
        ellipsoid: its name.
        towards: (3,) the patch's middle, a unit vector of the head frame.
        reach: cosine of the widest angle to ``towards``.
        swell: factor of the ellipsoid's size, for what lies on its surface.

    Returns:
        One (V, 2) hull, or none where the patch is turned away from the viewer.
    """
    center, half_axes = _ELLIPSOIDS[ellipsoid]
    patch = SPHERE[SPHERE @ towards > reach] * half_axes * (swell * figure.body.head_radius)
    offsets = patch @ figure.axes["head"].T
    visible = offsets[offsets[:, 2] > -0.012]
    if len(visible) < 4:
        return []
    return [convex_hull(figure.view.project(head_places(figure, center) + visible))]


def unit_vector(x: float, y: float, z: float) -> np.ndarray:
    """(3,) the direction of x, y, z."""
    return np.array((x, y, z)) / np.sqrt(x * x + y * y + z * z)
