"""Where the 17 keypoints of COCO are in the image, and which drawn parts show them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from querypose.synthetic.head import head_places
from querypose.synthetic.kinematics import SIDES
from querypose.synthetic.limbs import limb_parts
from querypose.synthetic.projection import ProjectedFigure
from querypose.synthetic.shapes import Part


@dataclass(frozen=True)
class Keypoint:
    """A projected keypoint.

    Attributes:
        x: continuous image coordinate in pixels.
        y: continuous image coordinate in pixels.
        shown_by: the parts that show this keypoint where they are the topmost thing at its place;
            empty where the body itself hides it.
    """

    x: float
    y: float
    shown_by: frozenset[Part]


_FACE_KEYPOINTS = {
    "nose": ((0.0, -0.22, 1.04), (0.0, 0.0, 1.0), -0.08),
    "left_eye": ((0.33, 0.04, 0.86), (0.42, 0.05, 0.9), 0.08),
    "right_eye": ((-0.33, 0.04, 0.86), (-0.42, 0.05, 0.9), 0.08),
    "left_ear": ((0.84, -0.08, -0.02), (1.0, 0.0, 0.0), -0.22),
    "right_ear": ((-0.84, -0.08, -0.02), (-1.0, 0.0, 0.0), -0.22),
}
"""Facial keypoints: place in head radii, outward normal, least turn of it towards the viewer."""
_FACE_PLACES = np.array([place for place, _, _ in _FACE_KEYPOINTS.values()])


def locate_keypoints(figure: ProjectedFigure) -> dict[str, Keypoint]:
    """The 17 keypoints of COCO by name."""
    return _locate_face(figure) | _locate_limbs(figure)


def _locate_face(figure: ProjectedFigure) -> dict[str, Keypoint]:
    """A facial keypoint shows where its place on the head is turned to the viewer."""
    points = figure.view.project(head_places(figure, _FACE_PLACES)).tolist()
    covered = {"left_ear", "right_ear"} if figure.look.hair_style in ("long", "curly") else set()
    towards_viewer = figure.axes["head"][2]
    located = {}
    for (name, (_, normal, least_turn)), (x, y) in zip(
        _FACE_KEYPOINTS.items(), points, strict=True
    ):
        shown = name not in covered and towards_viewer @ normal > least_turn
        located[name] = Keypoint(x, y, frozenset({Part.HEAD} if shown else ()))
    return located


def _locate_limbs(figure: ProjectedFigure) -> dict[str, Keypoint]:
    shown_by = {}
    for side in SIDES:
        upper, fore, thigh, shin = limb_parts(side)
        shown_by |= {
            f"{side}_shoulder": {upper} | _trunk_parts(figure, side, "shoulder"),
            f"{side}_elbow": {upper, fore},
            f"{side}_wrist": {fore},
            f"{side}_hip": {thigh} | _trunk_parts(figure, side, "hip"),
            f"{side}_knee": {thigh, shin},
            f"{side}_ankle": {shin},
        }
    places = figure.view.project(np.array([figure.points[name] for name in shown_by]))
    return {
        name: Keypoint(x, y, frozenset(parts))
        for (name, parts), (x, y) in zip(shown_by.items(), places.tolist(), strict=True)
    }


def _trunk_parts(figure: ProjectedFigure, side: str, name: str) -> set[Part]:
    """The trunk shows a shoulder or hip unless that is the far one of a side view."""
    other = "right" if side == "left" else "left"
    offset = figure.points[f"{side}_{name}"] - figure.points[f"{other}_{name}"]
    far = offset[2] < -0.65 * math.sqrt(offset @ offset)
    return set() if far else {Part.TORSO, Part.SKIRT}
