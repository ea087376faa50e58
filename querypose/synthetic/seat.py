"""The stool below a seated person."""

from __future__ import annotations

from querypose.synthetic.color import shade
from querypose.synthetic.kinematics import SIDES
from querypose.synthetic.polygons import CIRCLE, loft
from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shading import Segment, draw_hulls
from querypose.synthetic.shapes import Part, Shape


def seat_leg_segments(figure: ProjectedFigure) -> list[Segment]:
    """The legs of the stool, from below the pelvis to the level of the feet."""
    rotation, wood = figure.view.rotation, shade(figure.look.trim, 0.6)
    floor = min(figure.body.points[f"{side}_heel"][1] for side in SIDES) - 0.03
    floor = min(floor, -0.25)
    return [
        Segment(
            rotation @ (x, -0.15, z + 0.05),
            0.016,
            rotation @ (1.2 * x, floor, 1.2 * z + 0.05),
            0.014,
            wood,
            Part.OBJECT,
        )
        for x in (-0.14, 0.14)
        for z in (-0.12, 0.12)
    ]


def draw_seat_top(figure: ProjectedFigure) -> list[Shape]:
    """The disc one sits on."""
    view, rotation = figure.view, figure.view.rotation
    disc = CIRCLE[:, :1] * rotation[:, 0] * 0.2 + CIRCLE[:, 1:] * rotation[:, 2] * 0.2
    top = view.project(rotation @ (0, -0.12, 0.05) + disc)
    underside = view.project(rotation @ (0, -0.17, 0.05) + disc)
    return draw_hulls(figure, loft([top, underside]), shade(figure.look.trim, 0.75), Part.OBJECT)
