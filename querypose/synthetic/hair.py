"""Hair on and behind the head, and the cap."""

from __future__ import annotations

import numpy as np

from querypose.synthetic.color import shade
from querypose.synthetic.head import (
    SPHERE,
    head_places,
    surface_patch,
    unit_vector,
)
from querypose.synthetic.polygons import convex_hull
from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shading import Segment, draw_hulls
from querypose.synthetic.shapes import Part, Shape

_FACE_DIRECTION, _CHIN_DIRECTION = unit_vector(0.0, -0.42, 1.0), unit_vector(0.0, -0.4, 1.0)
_CAP_HALF_AXES = np.array((0.93, 1.02, 0.98))
_BRIM = np.array(
    [(-0.7, 0.3, 0.5), (0.7, 0.3, 0.5), (0.6, 0.22, 1.3), (0.0, 0.2, 1.5), (-0.6, 0.22, 1.3)]
)


def hanging_hair_segments(figure: ProjectedFigure) -> list[Segment]:
    """Long hair or a pony tail behind the head."""
    radius, color = figure.body.head_radius, figure.look.hair
    if figure.look.hair_style == "long":
        root, tip = head_places(figure, (0.0, 0.1, -0.25)), head_places(figure, (0.0, -1.35, -0.45))
        return [Segment(root, 0.86 * radius, tip, 0.72 * radius, color, Part.HEAD)]
    if figure.look.hair_style == "tail":
        root, tip = head_places(figure, (0.0, 0.35, -1.0)), head_places(figure, (0.0, -0.9, -1.35))
        return [Segment(root, 0.25 * radius, tip, 0.16 * radius, color, Part.HEAD)]
    return []


def draw_bun(figure: ProjectedFigure, contours: dict[str, np.ndarray]) -> list[Shape]:
    """A knot of hair behind the head."""
    if figure.look.hair_style != "bun":
        return []
    return draw_hulls(figure, [contours["bun"]], figure.look.hair, Part.HEAD)


def draw_scalp(figure: ProjectedFigure, contours: dict[str, np.ndarray]) -> list[Shape]:
    """Hair over the skull, then the face left free by the hairline."""
    look = figure.look
    if look.hair_style == "bald":
        return []
    scalp = contours["curls" if look.hair_style == "curly" else "scalp"]
    shapes = draw_hulls(figure, [scalp], look.hair, Part.HEAD)
    if figure.painted:
        face = surface_patch(figure, "skull", _FACE_DIRECTION, 0.42, swell=1.01)
        if figure.axes["head"][2, 2] > -0.3:
            face += surface_patch(figure, "jaw", _CHIN_DIRECTION, -0.1)
        shapes += [Shape(hull, look.skin) for hull in face]
    return shapes


def draw_cap(figure: ProjectedFigure) -> list[Shape]:
    """A cap with a brim over the forehead."""
    if figure.look.hair_style != "cap":
        return []
    color, radius = figure.look.trim, figure.body.head_radius
    crown = SPHERE[SPHERE[:, 1] > 0.18] * (radius * _CAP_HALF_AXES)
    crown_hull, brim_hull = (
        convex_hull(figure.view.project(figure.points["head"] + points @ figure.axes["head"].T))
        for points in (crown, radius * _BRIM)
    )
    return [
        *draw_hulls(figure, [crown_hull], color, Part.HEAD),
        *draw_hulls(figure, [brim_hull], shade(color, 0.85), Part.HEAD),
    ]
