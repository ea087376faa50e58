import cv2
import numpy as np
import pytest

from querypose.skeleton import COCO_SKELETON
from querypose.synthetic.appearance import sample_appearance
from querypose.synthetic.figure import draw_figure
from querypose.synthetic.kinematics import pose_body, rotation_about
from querypose.synthetic.pose import Pose
from querypose.synthetic.projection import View
from querypose.synthetic.shapes import Part

NAMES = COCO_SKELETON.keypoints


def upright_figure(yaw, *, nod=0.0, hair_style=None):
    """An upright figure with hanging arms, 100 pixels a meter, turned by ``yaw`` degrees."""
    pose = Pose(
        torso=np.zeros(3),
        head=np.array([nod, 0.0, 0.0]),
        arms=np.tile(np.radians([0.0, 12.0, 0.0, 5.0]), (2, 1)),
        legs=np.tile(np.radians([0.0, 4.0, 5.0, 2.0]), (2, 1)),
    )
    seed = 0
    look = sample_appearance(np.random.default_rng(seed))
    while hair_style is not None and look.hair_style != hair_style:
        seed += 1
        look = sample_appearance(np.random.default_rng(seed))
    rotation = rotation_about(1, np.radians(yaw))
    light = np.array([0.0, -1.0])
    view = View(rotation, 8.0, 100.0, np.array([128.0, 128.0]), light, 0.005)
    return draw_figure(pose_body(pose, look), look, view)


@pytest.mark.parametrize(("yaw", "sign"), [(0, 1), (180, -1)])
def test_left_is_the_persons_left(yaw, sign):
    figure = upright_figure(yaw)
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        left, right = figure.keypoints[f"left_{part}"], figure.keypoints[f"right_{part}"]
        assert sign * (left.x - right.x) > 0


def test_the_face_shows_from_the_front_alone():
    def shown(yaw):
        keypoints = upright_figure(yaw, hair_style="bald").keypoints
        return {name for name in NAMES[:5] if keypoints[name].shown_by}

    assert shown(0) == set(NAMES[:5])
    assert shown(180) == {"left_ear", "right_ear"}
    assert shown(90) == {"nose", "right_eye", "right_ear"}


def test_a_side_view_hides_the_far_hip_behind_the_trunk():
    keypoints = upright_figure(90).keypoints
    assert Part.TORSO in keypoints["right_hip"].shown_by
    assert Part.TORSO not in keypoints["left_hip"].shown_by
    assert keypoints["left_hip"].x == pytest.approx(128.0, abs=1.0)


def test_nearer_things_are_larger():
    turned = upright_figure(90).keypoints
    center = 128.0
    assert turned["right_shoulder"].y - center < turned["left_shoulder"].y - center < 0


def test_keypoints_lie_on_the_drawn_limbs():
    figure = upright_figure(0)
    for side in ("left", "right"):
        knee = figure.keypoints[f"{side}_knee"]
        thigh = next(s for s in figure.shapes if s.part == Part[f"{side.upper()}_THIGH"]).polygon
        shin = [s for s in figure.shapes if s.part == Part[f"{side.upper()}_SHIN"]]
        for polygon in (thigh, shin[2].polygon):
            assert cv2.pointPolygonTest(polygon.astype(np.float32), (knee.x, knee.y), False) > 0
