"""The label buffer: which part of whom every pixel shows, after nearer things have hidden it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from querypose.synthetic.figure import FigureDrawing, draw_figure
from querypose.synthetic.scene import Scene
from querypose.synthetic.shapes import (
    SUBPIXEL_BITS,
    Part,
    Shape,
    fixed_point_corners,
)

LABELS_PER_PERSON = 16
_OBJECT_LABEL = 255


def label_people(scene: Scene) -> tuple[np.ndarray, list[FigureDrawing], list[int]]:
    """What every pixel shows.

    Returns:
        labels: (H, W) uint8; 16 * (1 + person) + part, 255 for objects, 0 for the backdrop.
        drawings: the figures, without paint.
        full_areas: pixels each silhouette covers before nearer things hide it.
    """
    labels = np.zeros((scene.height, scene.width), dtype=np.uint8)
    drawings, full_areas = [], []
    for slot, person in enumerate(scene.people, start=1):
        drawing = draw_figure(person.body, person.look, person.view, painted=False)
        _label_shapes(labels, drawing.shapes, slot)
        drawings.append(drawing)
        first = slot * LABELS_PER_PERSON
        silhouette = cv2.inRange(labels, first, first + LABELS_PER_PERSON - 1)
        full_areas.append(cv2.countNonZero(silhouette))
    _label_shapes(labels, scene.foreground, 0)
    return labels, drawings, full_areas


def _label_shapes(labels: np.ndarray, shapes: Sequence[Shape], slot: int) -> None:
    silhouettes = [shape for shape in shapes if shape.part != Part.DETAIL]
    for shape, corners in zip(silhouettes, fixed_point_corners(silhouettes, 1), strict=True):
        of_object = shape.part == Part.OBJECT
        label = _OBJECT_LABEL if of_object else slot * LABELS_PER_PERSON + shape.part
        cv2.fillConvexPoly(labels, corners, label, cv2.LINE_8, SUBPIXEL_BITS)
