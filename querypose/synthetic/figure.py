"""One person as convex polygons in drawing order: farther body regions first.

The order makes self-occlusion follow from geometry, in the painted image and the labels alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from querypose.synthetic.appearance import Appearance
from querypose.synthetic.face import draw_face
from querypose.synthetic.hair import (
    draw_bun,
    draw_cap,
    draw_scalp,
    hanging_hair_segments,
)
from querypose.synthetic.head import head_contours, head_places
from querypose.synthetic.keypoints import Keypoint, locate_keypoints
from querypose.synthetic.kinematics import SIDES, PosedBody
from querypose.synthetic.limbs import arm_segments, leg_segments
from querypose.synthetic.projection import ProjectedFigure, View
from querypose.synthetic.seat import draw_seat_top, seat_leg_segments
from querypose.synthetic.shading import Segment, draw_chains, draw_hulls
from querypose.synthetic.shapes import Part, Shape
from querypose.synthetic.trunk import draw_trunk

_BEHIND_EVERYTHING = -10.0


@dataclass(frozen=True)
class FigureDrawing:
    """One posed and dressed person, projected and cut into shapes.

    Attributes:
        shapes: convex polygons in drawing order.
        keypoints: the 17 keypoints of COCO by name.
    """

    shapes: list[Shape]
    keypoints: dict[str, Keypoint]


def draw_figure(
    body: PosedBody, look: Appearance, view: View, *, painted: bool = True
) -> FigureDrawing:
    """Project a body and draw it.

    Args:
        body: the solved pose.
        look: build, clothes and colors.
        view: camera, place in the image, light.
        painted: False leaves out what only the painted image needs (the silhouette stays equal).
    """
    figure = ProjectedFigure(body, look, view, painted=painted)
    keypoints = locate_keypoints(figure)
    chains = draw_chains(figure, _chains(figure))
    regions = [
        (_trunk_depth(figure), draw_trunk(figure)),
        (figure.points["head"][2], _draw_head(figure, keypoints, chains)),
    ]
    for side in SIDES:
        regions.append((_arm_depth(figure, side), chains[f"{side}_arm"]))
        regions.append((_leg_depth(figure, side), chains[f"{side}_leg"]))
    if body.seated:
        regions.append((_BEHIND_EVERYTHING, chains["seat"] + draw_seat_top(figure)))
    regions.sort(key=lambda region: region[0])
    return FigureDrawing([shape for _, shapes in regions for shape in shapes], keypoints)


def _chains(figure: ProjectedFigure) -> dict[str, list[Segment]]:
    """All that consists of tapered capsules."""
    nape = head_places(figure, (0.0, -0.5, -0.1))
    neck = Segment(figure.points["neck"], 0.05, nape, 0.048, figure.look.skin, Part.HEAD)
    chains = {"neck": [neck], "hanging_hair": hanging_hair_segments(figure)}
    if figure.body.seated:
        chains["seat"] = seat_leg_segments(figure)
    for side in SIDES:
        chains[f"{side}_arm"] = arm_segments(figure, side)
        chains[f"{side}_leg"] = leg_segments(figure, side)
    return chains


def _draw_head(
    figure: ProjectedFigure, keypoints: dict[str, Keypoint], chains: dict[str, list[Shape]]
) -> list[Shape]:
    contours = head_contours(figure)
    back = chains["hanging_hair"] + draw_bun(figure, contours)
    front = [
        *chains["neck"],
        *draw_hulls(figure, [contours["skull"], contours["jaw"]], figure.look.skin, Part.HEAD),
        *draw_scalp(figure, contours),
        *draw_face(figure, contours, keypoints),
        *draw_cap(figure),
    ]
    faces_viewer = figure.axes["head"][2, 2] > 0
    return back + front if faces_viewer else front + back


def _trunk_depth(figure: ProjectedFigure) -> float:
    return 0.5 * (figure.points["waist"][2] + figure.points["neck"][2])


def _arm_depth(figure: ProjectedFigure, side: str) -> float:
    shoulder, elbow, wrist = figure.limb(side, "shoulder", "elbow", "wrist")
    reach = (elbow[2] + wrist[2]) / 2
    return 0.6 * reach + 0.4 * shoulder[2]


def _leg_depth(figure: ProjectedFigure, side: str) -> float:
    """Clothes of the trunk hang over the legs, unless a leg comes well forward (sitting)."""
    trunk_depth, knee_depth = _trunk_depth(figure), figure.points[f"{side}_knee"][2]
    over_trunk = knee_depth > max(trunk_depth, 0.0) + 0.16
    return knee_depth if over_trunk else min(knee_depth, trunk_depth) - 1.0
