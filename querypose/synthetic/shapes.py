"""Filled polygons that know what they belong to, and how OpenCV fills them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np

from querypose.synthetic.color import Color, shade
from querypose.synthetic.polygons import capsule_polygons, rectangle

SUBPIXEL_BITS = 4
"""Fractional bits of the corners that OpenCV is given."""


class Part(IntEnum):
    """What a shape belongs to.

    ``DETAIL`` is painted only and leaves the label buffer alone; ``OBJECT`` is no part of a person.
    """

    DETAIL = 0
    TORSO = 1
    HEAD = 2
    LEFT_UPPER_ARM = 3
    RIGHT_UPPER_ARM = 4
    LEFT_FOREARM = 5
    RIGHT_FOREARM = 6
    LEFT_THIGH = 7
    RIGHT_THIGH = 8
    LEFT_SHIN = 9
    RIGHT_SHIN = 10
    SKIRT = 11
    OBJECT = 12


class Shape(NamedTuple):
    """A filled convex polygon.

    Attributes:
        polygon: (V, 2) corners in continuous image coordinates (pixels).
        color: RGB, 0..255.
        part: the body part whose silhouette it is, or ``Part.DETAIL``.
    """

    polygon: np.ndarray
    color: Color
    part: Part = Part.DETAIL


def box_shapes(left: float, top: float, right: float, bottom: float, color: Color) -> list[Shape]:
    """A rectangular object with a darker rim."""
    rim = 0.06 * min(right - left, bottom - top)
    return [
        Shape(rectangle(left, top, right, bottom), shade(color, 0.6), Part.OBJECT),
        Shape(rectangle(left + rim, top + rim, right - rim, bottom - rim), color),
    ]


def line_shapes(starts: np.ndarray, ends: np.ndarray, radius: float, color: Color) -> list[Shape]:
    """(N, 2) starts and ends -> N lines of twice ``radius`` pixels."""
    radii = np.full(len(starts), radius)
    return [Shape(polygon, color) for polygon in capsule_polygons(starts, radii, ends, radii)]


def fixed_point_corners(shapes: Sequence[Shape], zoom: int) -> Iterator[np.ndarray]:
    """OpenCV's corners of each shape, in an image ``zoom`` times as large.

    Yields:
        (V, 2) int32, fixed-point with :data:`SUBPIXEL_BITS`, pixel centers at whole numbers.
    """
    if not shapes:
        return
    corners = np.concatenate([shape.polygon for shape in shapes])
    fixed = np.rint((zoom * corners - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    first = 0
    for shape in shapes:
        yield fixed[first : first + len(shape.polygon)]
        first += len(shape.polygon)


def paint_shapes(canvas: np.ndarray, shapes: Sequence[Shape], *, zoom: int = 1) -> None:
    """Paint ``shapes`` in order over ``canvas``, (zoom * H, zoom * W, 3) uint8, in place."""
    for shape, corners in zip(shapes, fixed_point_corners(shapes, zoom), strict=True):
        cv2.fillConvexPoly(canvas, corners, shape.color, cv2.LINE_8, SUBPIXEL_BITS)
