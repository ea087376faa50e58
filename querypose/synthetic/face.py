"""Ears, beard, mouth, eyes and nose."""

from __future__ import annotations

import numpy as np

from querypose.synthetic.color import shade
from querypose.synthetic.head import head_places, surface_patch, unit_vector
from querypose.synthetic.keypoints import Keypoint
from querypose.synthetic.kinematics import SIDES
from querypose.synthetic.polygons import capsule_polygons, grow
from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shading import CONTOUR_GAIN
from querypose.synthetic.shapes import Part, Shape

_BEARD_DIRECTION = unit_vector(0.0, -0.75, 0.7)


def draw_face(
    figure: ProjectedFigure, contours: dict[str, np.ndarray], keypoints: dict[str, Keypoint]
) -> list[Shape]:
    """What of the face is turned to the viewer, in drawing order.

    Args:
        figure: whose face.
        contours: of the head's ellipsoids.
        keypoints: those that no part shows are not drawn.
    """
    shapes = []
    for side in SIDES:
        if keypoints[f"{side}_ear"].shown_by:
            shapes += _draw_ear(figure, contours, side)
    if figure.painted:
        shapes += _draw_beard(figure) + _draw_mouth(figure)
        for side in SIDES:
            if keypoints[f"{side}_eye"].shown_by:
                shapes += _draw_eye(figure, contours, side)
    if keypoints["nose"].shown_by:
        skin = figure.look.skin
        shapes.append(Shape(contours["nose"], shade(skin, 0.84), Part.HEAD))
        shapes.append(Shape(contours["bridge"], shade(skin, 1.04)))
    return shapes


def _draw_ear(figure: ProjectedFigure, contours: dict[str, np.ndarray], side: str) -> list[Shape]:
    skin = figure.look.skin
    rim = grow(contours[f"{side}_ear"], figure.view.outline * figure.view.scale)
    return [
        Shape(rim, shade(skin, CONTOUR_GAIN), Part.HEAD),
        Shape(contours[f"{side}_ear_inside"], shade(skin, 0.9)),
    ]


def _draw_beard(figure: ProjectedFigure) -> list[Shape]:
    if not figure.look.beard or figure.axes["head"][2, 2] <= -0.2:
        return []
    hulls = surface_patch(figure, "jaw", _BEARD_DIRECTION, 0.45, swell=1.05)
    return [Shape(hull, figure.look.hair) for hull in hulls]


def _draw_mouth(figure: ProjectedFigure) -> list[Shape]:
    if figure.axes["head"][2, 2] <= 0.15:
        return []
    lift = 0.09 * figure.look.smile
    places = ((-0.26, -0.6 + lift, 0.7), (0.0, -0.6, 0.79), (0.26, -0.6 + lift, 0.7))
    centers = figure.view.project(head_places(figure, np.array(places)))
    radii = np.full(2, 0.05 * figure.body.head_radius * figure.view.scale)
    red, green, blue = figure.look.skin
    lips = (0.8 * red, 0.5 * green, 0.5 * blue)
    polygons = capsule_polygons(centers[:2], radii, centers[1:], radii)
    return [Shape(polygon, lips) for polygon in polygons]


def _draw_eye(figure: ProjectedFigure, contours: dict[str, np.ndarray], side: str) -> list[Shape]:
    """White (or glasses), iris and brow."""
    if figure.look.glasses:
        ground = [
            Shape(contours[f"{side}_rim"], (28.0, 28.0, 34.0)),
            Shape(contours[f"{side}_lens"], (205.0, 220.0, 228.0)),
        ]
    else:
        ground = [Shape(contours[f"{side}_eye"], (246.0, 244.0, 240.0))]
    iris = Shape(contours[f"{side}_iris"], (36.0, 26.0, 24.0))
    brow = Shape(contours[f"{side}_brow"], shade(figure.look.hair, 0.75))
    return [*ground, iris, brow]
