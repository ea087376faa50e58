"""From the angles of a pose to landmarks: forward kinematics of the body.

Body frame: x to the person's left, y up, z forward, origin at the pelvis; lengths in meters of an
adult of about 1.75 m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from querypose.synthetic.appearance import Appearance
from querypose.synthetic.pose import Pose

SIDES = ("left", "right")
_HIP_HALF_WIDTH = 0.092
_SHOULDER_HALF_WIDTH = 0.175
_HEAD_RADIUS = 0.118


@dataclass
class PosedBody:
    """A solved pose, all in the body frame (meters).

    Attributes:
        seated: whether a seat belongs below the pelvis.
        head_radius: the unit in which the head is modeled.
        points: landmarks (3,) by name.
        frames: (3, 3) orientation of the pelvis, chest and head by name; columns are their axes.
    """

    seated: bool
    head_radius: float
    points: dict[str, np.ndarray] = field(default_factory=dict)
    frames: dict[str, np.ndarray] = field(default_factory=dict)


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """Right-handed (3, 3) rotation about axis 0, 1 or 2 (x, y, z) by ``angle`` radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    if axis == 0:
        rows = ((1.0, 0.0, 0.0), (0.0, cosine, -sine), (0.0, sine, cosine))
    elif axis == 1:
        rows = ((cosine, 0.0, sine), (0.0, 1.0, 0.0), (-sine, 0.0, cosine))
    else:
        rows = ((cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, 1.0))
    return np.array(rows)


def pose_body(pose: Pose, look: Appearance) -> PosedBody:
    """Place the landmarks of a body of that build, from the pelvis outwards."""
    body = PosedBody(pose.seated, _HEAD_RADIUS * look.head_scale)
    _pose_trunk_and_head(body, pose)
    for index, (side, sign) in enumerate(zip(SIDES, (1.0, -1.0), strict=True)):
        _pose_arm(body, pose.arms[index], side, sign, look)
        _pose_leg(body, pose.legs[index], side, sign, look)
    return body


def _pose_trunk_and_head(body: PosedBody, pose: Pose) -> None:
    lean, side_lean, twist = pose.torso
    bend = rotation_about(0, 0.5 * lean) @ rotation_about(2, -0.5 * side_lean)
    chest = bend @ bend @ rotation_about(1, twist)
    nod, turn, tilt = pose.head
    head = chest @ rotation_about(1, turn) @ rotation_about(0, nod) @ rotation_about(2, -tilt)
    points = body.points
    body.frames.update(pelvis=bend, chest=chest, head=head)
    points["waist"] = bend @ (0.0, 0.17, 0.0)
    points["neck"] = points["waist"] + chest @ (0.0, 0.33, 0.0)
    neck_direction = 0.6 * chest[:, 1] + 0.4 * head[:, 1] + 0.12 * chest[:, 2]
    points["head"] = points["neck"] + neck_direction * (0.055 + body.head_radius)


def _pose_arm(
    body: PosedBody, angles: np.ndarray, side: str, sign: float, look: Appearance
) -> None:
    forward, outward, inward_twist, elbow = angles
    points, chest = body.points, body.frames["chest"]
    upper = (
        chest
        @ rotation_about(2, sign * outward)
        @ rotation_about(0, -forward)
        @ rotation_about(1, -sign * inward_twist)
    )
    fore = upper @ rotation_about(0, -elbow)
    half_width = _SHOULDER_HALF_WIDTH * look.shoulder_scale
    points[f"{side}_shoulder"] = points["waist"] + chest @ (sign * half_width, 0.285, 0.0)
    points[f"{side}_elbow"] = points[f"{side}_shoulder"] - 0.285 * upper[:, 1]
    points[f"{side}_wrist"] = points[f"{side}_elbow"] - 0.245 * fore[:, 1]
    points[f"{side}_hand"] = points[f"{side}_wrist"] - 0.085 * fore[:, 1]
    thumb = 0.055 * fore[:, 1] - 0.04 * fore[:, 2]
    points[f"{side}_thumb"] = points[f"{side}_wrist"] - thumb


def _pose_leg(
    body: PosedBody, angles: np.ndarray, side: str, sign: float, look: Appearance
) -> None:
    forward, outward, outward_twist, knee = angles
    points = body.points
    thigh = (
        rotation_about(2, sign * outward)
        @ rotation_about(0, -forward)
        @ rotation_about(1, sign * outward_twist)
    )
    shin = thigh @ rotation_about(0, knee)
    hip = np.array([sign * _HIP_HALF_WIDTH * look.hip_scale, -0.02, 0.0])
    points[f"{side}_hip"] = hip
    points[f"{side}_knee"] = hip - 0.42 * look.leg_scale * thigh[:, 1]
    points[f"{side}_ankle"] = points[f"{side}_knee"] - 0.40 * look.leg_scale * shin[:, 1]
    points[f"{side}_heel"] = points[f"{side}_ankle"] + shin @ (0.0, -0.05, -0.025)
    points[f"{side}_toe"] = points[f"{side}_ankle"] + shin @ (0.0, -0.062, 0.15)
