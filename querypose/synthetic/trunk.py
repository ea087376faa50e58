"""Hips, chest and what is worn on them: hulls of neighboring cross-sections."""

from __future__ import annotations

import numpy as np

from querypose.synthetic.color import shade
from querypose.synthetic.polygons import CIRCLE, convex_hull, grow, loft
from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shading import draw_hulls
from querypose.synthetic.shapes import Part, Shape


def draw_trunk(figure: ProjectedFigure) -> list[Shape]:
    """Hips, skirt, shirt and the shirt's pattern, in drawing order."""
    look = figure.look
    rings = _trunk_rings(figure)
    shapes = draw_hulls(figure, loft(rings[:3]), look.bottoms, Part.TORSO)
    if look.bottom_style in ("skirt", "dress"):
        color = look.shirt if look.bottom_style == "dress" else look.bottoms
        shapes += draw_hulls(figure, loft([rings[2], _skirt_hem(figure)]), color, Part.SKIRT)
    shapes += draw_hulls(figure, loft(rings[2:]), look.shirt, Part.TORSO)
    if figure.painted:
        shapes += _draw_bands(figure, rings)
        # The front of the chest is turned to the viewer.
        if figure.axes["chest"][2, 2] > 0.15:
            shapes += _draw_front(figure, rings)
        shapes += _draw_belt(figure, rings)
    return shapes


def _trunk_rings(figure: ProjectedFigure) -> np.ndarray:
    """(7, 20, 2) projected cross-sections from the crotch to the base of the neck."""
    pelvis_axes, chest_axes = figure.axes["pelvis"], figure.axes["chest"]
    pelvis, waist = np.zeros(3), figure.points["waist"]
    hips, chest, girth = figure.look.hip_scale, figure.look.shoulder_scale, figure.look.girth
    # Axes, base, height above it, half width, half depth.
    sections = (
        (pelvis_axes, pelvis, -0.085, 0.10 * hips, 0.08),
        (pelvis_axes, pelvis, 0.0, 0.163 * hips, 0.112),
        (pelvis_axes, pelvis, 0.07, 0.155 * hips, 0.108),
        (chest_axes, waist, 0.0, 0.132 * (0.4 + 0.6 * girth), 0.096 * girth),
        (chest_axes, waist, 0.18, 0.165 * chest, 0.118),
        (chest_axes, waist, 0.285, 0.175 * chest, 0.08),
        (chest_axes, waist, 0.335, 0.07, 0.06),
    )
    axes = np.array([section[0] for section in sections])
    centers = np.array([base + up * frame[:, 1] for frame, base, up, _, _ in sections])
    sizes = np.array([section[3:] for section in sections])
    across = CIRCLE[None, :, :1] * (axes[:, :, 0] * sizes[:, :1])[:, None]
    through = CIRCLE[None, :, 1:] * (axes[:, :, 2] * sizes[:, 1:])[:, None]
    return figure.view.project(centers[:, None] + across + through)


def _skirt_hem(figure: ProjectedFigure) -> np.ndarray:
    """(20, 2) the projected hem, an ellipse round both thighs a little above the knees."""
    points = figure.points
    hips = np.array([points["left_hip"], points["right_hip"]])
    knees = np.array([points["left_knee"], points["right_knee"]])
    left, right = hips + 0.85 * (knees - hips)
    between = left - right
    across = (0.5 + 0.1 / max(np.linalg.norm(between), 1e-6)) * between
    through = np.cross(across, 0.5 * (left + right) - hips.mean(axis=0))
    through *= 0.13 / max(np.linalg.norm(through), 1e-6)
    ring = 0.5 * (left + right) + CIRCLE[:, :1] * across + CIRCLE[:, 1:] * through
    return figure.view.project(ring)


def _draw_bands(figure: ProjectedFigure, rings: np.ndarray) -> list[Shape]:
    """Stripes or a chest panel round the shirt."""
    look = figure.look
    # Each band: the ring below it, its lower edge and width as shares of the way to the next ring.
    bands = []
    if look.shirt_pattern == "stripes":
        bands = [(3 + k // 2, 0.1 + 0.5 * (k % 2), 0.28) for k in range(4)]
    elif look.shirt_pattern == "panel":
        bands = [(4, 0.0, 0.5)]
    inset = 0.01 * figure.view.scale
    shapes = []
    for ring, start, width in bands:
        low, high = rings[ring], rings[ring + 1]
        edges = [low + start * (high - low), low + (start + width) * (high - low)]
        shapes += [Shape(grow(hull, -inset), look.trim) for hull in loft(edges)]
    return shapes


def _draw_front(figure: ProjectedFigure, rings: np.ndarray) -> list[Shape]:
    """What is only on the front of the shirt; ring corner 5 is the middle of the front."""
    look, scale = figure.look, figure.view.scale
    if look.shirt_pattern == "logo":
        chest = rings[4, 3:8].mean(axis=0)
        axes = figure.axes["chest"][:2, :2] * (0.06, 0.05)
        return [Shape(chest + CIRCLE @ axes.T * (1.0, -1.0) * scale, look.trim)]
    if look.shirt_pattern == "buttons":
        dot = 0.009 * scale * CIRCLE
        places = 0.5 * (rings[2:5, 5] + rings[3:6, 5])
        return [Shape(place + dot, shade(look.shirt, 0.45)) for place in places]
    if look.shirt_pattern == "jacket":
        return [Shape(convex_hull(rings[2:6, [4, 6]].reshape(-1, 2)), look.trim)]
    return []


def _draw_belt(figure: ProjectedFigure, rings: np.ndarray) -> list[Shape]:
    if figure.look.bottom_style not in ("trousers", "shorts"):
        return []
    hulls = loft([rings[2], rings[2] + 0.18 * (rings[3] - rings[2])])
    return [Shape(hull, shade(figure.look.bottoms, 0.45)) for hull in hulls]
