"""Articulated human figures: pose, appearance, projection and the shapes that draw them.

A figure is posed in three dimensions by forward kinematics and projected with a weak perspective,
so foreshortening, self-occlusion and hidden faces follow from geometry. It is handed on as a list
of convex polygons in drawing order, which serves the painted picture and the label buffer alike.

Body frame: x to the person's left, y up, z forward, origin at the pelvis; lengths in metres of an
adult of about 1.75 m. Camera frame: x to the picture's right, y up, z towards the viewer. A person
who faces the viewer therefore has both frames aligned, and the left shoulder at the larger x.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np

Colour = tuple[float, float, float]
Range = tuple[float, float]


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
        polygon: (V, 2) corners in continuous picture coordinates (pixels).
        colour: RGB, 0..255.
        part: the body part whose silhouette it is, or ``Part.DETAIL``.
    """

    polygon: np.ndarray
    colour: Colour
    part: Part = Part.DETAIL


@dataclass(frozen=True)
class Keypoint:
    """A projected keypoint.

    Attributes:
        x: continuous picture coordinate in pixels.
        y: continuous picture coordinate in pixels.
        shown_by: the parts that show this keypoint where they are the topmost thing at its place;
            empty where the body itself hides it.
    """

    x: float
    y: float
    shown_by: frozenset[Part]


@dataclass(frozen=True)
class Pose:
    """Angles in radians; arms and legs are indexed [left, right].

    Attributes:
        torso: forward lean, lean to the left, twist to the left.
        head: nod, turn to the left, tilt to the left; relative to the chest.
        arms: (2, 4) forward lift, outward lift, inward twist, elbow bend.
        legs: (2, 4) forward lift, outward lift, outward twist, knee bend.
        seated: whether a seat belongs below the pelvis.
    """

    torso: np.ndarray
    head: np.ndarray
    arms: np.ndarray
    legs: np.ndarray
    seated: bool = False


@dataclass(frozen=True)
class Appearance:
    """Build, clothes and colours of one figure (RGB, 0..255; sizes relative to an adult)."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trim: Colour
    bottoms: Colour
    shoes: Colour
    hair_style: str
    bottom_style: str
    sleeve: float
    shirt_pattern: str
    head_scale: float
    girth: float
    shoulder_scale: float
    hip_scale: float
    leg_scale: float
    beard: bool
    glasses: bool
    smile: float


@dataclass(frozen=True)
class View:
    """How the camera sees a figure.

    Attributes:
        rotation: (3, 3) body frame to camera frame.
        distance: camera distance in metres; smaller means stronger perspective.
        scale: pixels per metre at the pelvis' depth.
        origin: (2,) the pelvis in continuous picture coordinates (pixels).
        light: (2,) unit vector in the picture that points to the light.
        outline: width of the contour in metres.
    """

    rotation: np.ndarray
    distance: float
    scale: float
    origin: np.ndarray
    light: np.ndarray
    outline: float


_ARM_RANGES: dict[str, tuple[Range, Range, Range, Range]] = {
    "hang": ((-15, 18), (4, 16), (-10, 30), (5, 30)),
    "swing_front": ((15, 40), (3, 12), (0, 30), (15, 60)),
    "swing_back": ((-45, -15), (5, 15), (0, 20), (5, 50)),
    "run_front": ((20, 55), (5, 20), (10, 40), (70, 110)),
    "run_back": ((-65, -30), (5, 20), (0, 20), (70, 110)),
    "akimbo": ((-20, 0), (38, 52), (70, 90), (85, 110)),
    "folded": ((20, 35), (5, 15), (60, 80), (90, 110)),
    "raised": ((-10, 10), (120, 170), (-90, 0), (0, 60)),
    "reach_up": ((150, 178), (0, 15), (-10, 10), (0, 40)),
    "wave": ((0, 15), (70, 100), (-100, -75), (60, 110)),
    "sideways": ((-10, 15), (65, 100), (-30, 30), (0, 40)),
    "forward": ((60, 100), (-5, 15), (0, 30), (0, 50)),
    "phone": ((25, 50), (5, 20), (10, 40), (100, 135)),
    "lap": ((10, 35), (0, 12), (10, 40), (40, 75)),
    "dangle": ((50, 95), (0, 15), (-10, 20), (0, 30)),
}
_LEG_RANGES: dict[str, tuple[Range, Range, Range, Range]] = {
    "straight": ((-4, 6), (1, 8), (0, 20), (0, 8)),
    "relaxed": ((4, 18), (2, 12), (5, 30), (8, 30)),
    "stride_front": ((15, 32), (0, 5), (0, 10), (3, 20)),
    "stride_back": ((-25, -10), (0, 5), (0, 10), (10, 35)),
    "run_front": ((45, 75), (0, 6), (0, 8), (50, 100)),
    "run_back": ((-30, -5), (0, 6), (0, 8), (20, 100)),
    "wide": ((-5, 10), (15, 35), (0, 25), (0, 20)),
    "sit": ((72, 95), (2, 14), (0, 12), (65, 100)),
    "squat": ((90, 120), (8, 30), (0, 25), (105, 140)),
    "kneel": ((-5, 15), (2, 8), (0, 5), (85, 110)),
    "kick": ((40, 95), (0, 15), (0, 10), (0, 40)),
    "lunge": ((60, 85), (0, 8), (0, 10), (60, 90)),
    "trail": ((-35, -15), (0, 5), (0, 5), (20, 70)),
}


@dataclass(frozen=True)
class _Activity:
    """A family of poses: possible arm pairs, one leg pair, the range of the forward lean."""

    weight: float
    arm_pairs: tuple[tuple[str, str], ...]
    leg_pair: tuple[str, str]
    lean: Range
    seated: bool = False


_STANDING_ARMS = (
    *(("hang", "hang"),) * 4,
    ("akimbo", "akimbo"),
    ("akimbo", "hang"),
    ("folded", "folded"),
    ("raised", "raised"),
    ("raised", "hang"),
    ("reach_up", "hang"),
    ("reach_up", "reach_up"),
    ("wave", "hang"),
    ("wave", "akimbo"),
    ("phone", "hang"),
    ("phone", "phone"),
    ("sideways", "sideways"),
    ("sideways", "akimbo"),
    ("forward", "hang"),
    ("forward", "forward"),
    ("lap", "hang"),
)
_ACTIVITIES = (
    _Activity(5.0, _STANDING_ARMS, ("straight", "straight"), (-4, 8)),
    _Activity(4.0, _STANDING_ARMS, ("straight", "relaxed"), (-4, 10)),
    _Activity(
        4.0,
        (("swing_back", "swing_front"), ("swing_back", "phone"), ("hang", "wave")),
        ("stride_front", "stride_back"),
        (0, 12),
    ),
    _Activity(3.0, (("run_back", "run_front"),), ("run_front", "run_back"), (8, 28)),
    _Activity(
        3.0,
        (("lap", "lap"), ("lap", "phone"), ("hang", "lap"), ("folded", "folded"), ("wave", "lap")),
        ("sit", "sit"),
        (-8, 25),
        seated=True,
    ),
    _Activity(1.2, (("forward", "forward"), ("lap", "lap")), ("squat", "squat"), (15, 45)),
    _Activity(
        1.0, (("hang", "hang"), ("forward", "hang"), ("lap", "lap")), ("kneel", "lunge"), (0, 20)
    ),
    _Activity(
        1.5, (("sideways", "raised"), ("run_front", "run_back")), ("kick", "relaxed"), (-20, 12)
    ),
    _Activity(1.5, (("raised", "raised"), ("sideways", "sideways")), ("wide", "wide"), (-8, 12)),
    _Activity(
        1.0, (("raised", "raised"), ("reach_up", "wave")), ("run_front", "relaxed"), (-12, 8)
    ),
    _Activity(1.5, (("dangle", "dangle"), ("dangle", "akimbo")), ("straight", "relaxed"), (45, 95)),
    _Activity(1.2, (("sideways", "sideways"), ("akimbo", "raised")), ("lunge", "trail"), (-5, 20)),
)
_ACTIVITY_ODDS = np.cumsum([activity.weight for activity in _ACTIVITIES])
_ACTIVITY_ODDS /= _ACTIVITY_ODDS[-1]
_NECK_RANGES = ((-18, 22), (-45, 45), (-12, 12))


@functools.cache
def _angle_bounds(*ranges: Range) -> tuple[np.ndarray, np.ndarray]:
    """Ranges in degrees -> lowest values and widths in radians."""
    low, high = np.radians(np.array(ranges, dtype=float)).T
    return low, high - low


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw the pose of a person who stands, walks, runs, sits, bends, jumps, ..."""
    activity = _ACTIVITIES[np.searchsorted(_ACTIVITY_ODDS, rng.random(), side="right")]
    first_arm, second_arm = activity.arm_pairs[rng.integers(len(activity.arm_pairs))]
    first_leg, second_leg = activity.leg_pair
    low, width = _angle_bounds(
        *_ARM_RANGES[first_arm],
        *_ARM_RANGES[second_arm],
        *_LEG_RANGES[first_leg],
        *_LEG_RANGES[second_leg],
        *(activity.lean, (-8, 8), (-15, 15)),
        *_NECK_RANGES,
    )
    angles = low + width * rng.random(len(low))
    arms, legs = angles[:8].reshape(2, 4), angles[8:16].reshape(2, 4)
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    return Pose(angles[16:19], angles[19:], arms, legs, activity.seated)


_SKIN_TONES = np.array(
    [
        (255, 224, 196),
        (241, 194, 155),
        (224, 172, 125),
        (198, 134, 86),
        (141, 85, 50),
        (92, 56, 36),
    ],
    dtype=float,
)
_HAIR_TONES = np.array(
    [
        *((30, 24, 22), (64, 42, 28), (106, 70, 40), (176, 132, 70)),
        *((224, 190, 120), (150, 62, 30), (168, 168, 170), (222, 220, 214)),
    ],
    dtype=float,
)
_HAIR_STYLES = ("short", "short", "short", "long", "long", "bun", "tail", "bald", "cap", "curly")
_BOTTOM_STYLES = ("trousers", "trousers", "trousers", "shorts", "shorts", "skirt", "dress")
_SHIRT_PATTERNS = ("plain", "plain", "plain", "stripes", "panel", "logo", "buttons", "jacket")


def _cloth_colour(rng: np.random.Generator) -> Colour:
    hue = rng.integers(180)
    saturation, value = (
        (rng.integers(0, 50), rng.integers(25, 245))
        if rng.random() < 0.4
        else (rng.integers(90, 225), rng.integers(70, 245))
    )
    pixel = np.array([[[hue, saturation, value]]], dtype=np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return (red, green, blue)


def _between(rng: np.random.Generator, tones: np.ndarray) -> Colour:
    place = rng.integers(len(tones) - 1)
    red, green, blue = (tones[place] + rng.random() * (tones[place + 1] - tones[place])).tolist()
    return (red, green, blue)


def _varied(rng: np.random.Generator, tones: np.ndarray) -> Colour:
    red, green, blue = np.clip(tones[rng.integers(len(tones))] * rng.uniform(0.85, 1.12), 0, 255)
    return (float(red), float(green), float(blue))


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draw build, clothes and colours; about one figure in six has a child's proportions."""
    child = rng.random() < 0.16
    hair_style = _HAIR_STYLES[rng.integers(len(_HAIR_STYLES))]
    long_hair = hair_style in ("long", "bun", "tail")
    return Appearance(
        skin=_between(rng, _SKIN_TONES),
        hair=_varied(rng, _HAIR_TONES),
        shirt=_cloth_colour(rng),
        trim=_cloth_colour(rng),
        bottoms=_cloth_colour(rng),
        shoes=_cloth_colour(rng),
        hair_style=hair_style,
        bottom_style=_BOTTOM_STYLES[rng.integers(len(_BOTTOM_STYLES) if long_hair else 5)],
        sleeve=float(rng.choice([0.0, 0.5, 0.6, 2.0, 2.0, 1.4])),
        shirt_pattern=_SHIRT_PATTERNS[rng.integers(len(_SHIRT_PATTERNS))],
        head_scale=rng.uniform(1.3, 1.5) if child else rng.uniform(1.0, 1.18),
        girth=rng.uniform(0.85, 1.3),
        shoulder_scale=rng.uniform(0.82, 0.95) if child or long_hair else rng.uniform(0.95, 1.12),
        hip_scale=rng.uniform(0.92, 1.12),
        leg_scale=rng.uniform(0.78, 0.88) if child else rng.uniform(0.94, 1.05),
        beard=bool(not child and not long_hair and rng.random() < 0.3),
        glasses=bool(rng.random() < 0.15),
        smile=rng.uniform(-0.3, 1.0),
    )


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


_SIDES = ((0, "left", 1.0), (1, "right", -1.0))
_HIP_HALF_WIDTH = 0.092
_SHOULDER_HALF_WIDTH = 0.175
_HEAD_RADIUS = 0.118


@dataclass
class PosedBody:
    """A solved pose: landmarks (3,) and frames (3, 3) by name, all in the body frame (metres)."""

    seated: bool

    points: dict[str, np.ndarray] = field(default_factory=dict)
    frames: dict[str, np.ndarray] = field(default_factory=dict)


def pose_body(pose: Pose, look: Appearance) -> PosedBody:
    """Forward kinematics from the pelvis outwards."""
    lean, side_lean, twist = pose.torso
    bend = rotation_about(0, 0.5 * lean) @ rotation_about(2, -0.5 * side_lean)
    chest = bend @ bend @ rotation_about(1, twist)
    nod, turn, tilt = pose.head
    head = chest @ rotation_about(1, turn) @ rotation_about(0, nod) @ rotation_about(2, -tilt)
    body = PosedBody(pose.seated)
    points, frames = body.points, body.frames
    frames.update(pelvis=bend, chest=chest, head=head)
    points["waist"] = bend @ (0.0, 0.17, 0.0)
    points["neck"] = points["waist"] + chest @ (0.0, 0.33, 0.0)
    radius = _HEAD_RADIUS * look.head_scale
    neck_direction = 0.6 * chest[:, 1] + 0.4 * head[:, 1] + 0.12 * chest[:, 2]
    points["head"] = points["neck"] + neck_direction * (0.055 + radius)
    for index, side, sign in _SIDES:
        _pose_arm(body, pose.arms[index], side, sign, look)
        _pose_leg(body, pose.legs[index], side, sign, look)
    return body


def _pose_arm(
    body: PosedBody, angles: np.ndarray, side: str, sign: float, look: Appearance
) -> None:
    forward, outward, inward_twist, elbow = angles
    points, frames = body.points, body.frames
    upper = (
        frames["chest"]
        @ rotation_about(2, sign * outward)
        @ rotation_about(0, -forward)
        @ rotation_about(1, -sign * inward_twist)
    )
    fore = upper @ rotation_about(0, -elbow)
    half_width = _SHOULDER_HALF_WIDTH * look.shoulder_scale
    points[f"{side}_shoulder"] = points["waist"] + frames["chest"] @ (sign * half_width, 0.285, 0.0)
    points[f"{side}_elbow"] = points[f"{side}_shoulder"] - 0.285 * upper[:, 1]
    points[f"{side}_wrist"] = points[f"{side}_elbow"] - 0.245 * fore[:, 1]
    points[f"{side}_hand"] = points[f"{side}_wrist"] - 0.085 * fore[:, 1]
    thumb = 0.055 * fore[:, 1] - 0.04 * fore[:, 2]
    points[f"{side}_thumb"] = points[f"{side}_wrist"] - thumb


def _pose_leg(
    body: PosedBody, angles: np.ndarray, side: str, sign: float, look: Appearance
) -> None:
    forward, outward, outward_twist, knee = angles
    points, frames = body.points, body.frames
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
    frames[f"{side}_thigh"], frames[f"{side}_foot"] = thigh, shin
    points[f"{side}_heel"] = points[f"{side}_ankle"] + shin @ (0.0, -0.05, -0.025)
    points[f"{side}_toe"] = points[f"{side}_ankle"] + shin @ (0.0, -0.062, 0.15)


_CIRCLE_ANGLES = np.linspace(0.0, 2.0 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_CIRCLE_ANGLES), np.sin(_CIRCLE_ANGLES)], axis=1)
_ARC = np.linspace(-1.0, 1.0, 9)


def _sphere_directions() -> np.ndarray:
    """(240, 3) unit vectors spread evenly over the sphere (a Fibonacci lattice)."""
    index = np.arange(240) + 0.5
    height = 1.0 - 2.0 * index / len(index)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.sqrt(1.0 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def _unit(x: float, y: float, z: float) -> np.ndarray:
    return np.array((x, y, z)) / math.sqrt(x * x + y * y + z * z)


_SPHERE = _sphere_directions()
_FACE_DIRECTION, _CHIN_DIRECTION = _unit(0.0, -0.42, 1.0), _unit(0.0, -0.4, 1.0)
_BEARD_DIRECTION = _unit(0.0, -0.75, 0.7)
_BRIM = np.array(
    [(-0.7, 0.3, 0.5), (0.7, 0.3, 0.5), (0.6, 0.22, 1.3), (0.0, 0.2, 1.5), (-0.6, 0.22, 1.3)]
)


def capsule_polygons(
    starts: np.ndarray, start_radii: np.ndarray, ends: np.ndarray, end_radii: np.ndarray
) -> np.ndarray:
    """Convex hulls of pairs of discs (tapered capsules).

    Args:
        starts: (N, 2) centres of the first discs.
        start_radii: (N,).
        ends: (N, 2) centres of the second discs.
        end_radii: (N,).

    Returns:
        (N, 18, 2) corners in order round each hull, in the unit of the input.
    """
    along = ends - starts
    length = np.hypot(along[:, 0], along[:, 1])
    heading = np.arctan2(along[:, 1], along[:, 0])[:, None]
    # The clip makes a disc that swallows the other stand for the whole hull.
    ratio = np.clip((start_radii - end_radii) / np.maximum(length, 1e-6), -1.0, 1.0)
    tangent = np.arccos(ratio)[:, None]
    # Nine corners round the far end of either disc, from tangent point to tangent point.
    angles = np.concatenate([tangent * _ARC, np.pi + (np.pi - tangent) * _ARC], axis=1) + heading
    radii = np.repeat(np.stack([end_radii, start_radii], axis=1), len(_ARC), axis=1)
    polygons = np.repeat(np.stack([ends, starts], axis=1), len(_ARC), axis=1)
    polygons[..., 0] += radii * np.cos(angles)
    polygons[..., 1] += radii * np.sin(angles)
    return polygons


def shade(colour: Colour, gain: float) -> Colour:
    """``colour`` made darker (``gain`` < 1) or brighter (> 1), within 0..255."""
    return (
        min(255.0, colour[0] * gain),
        min(255.0, colour[1] * gain),
        min(255.0, colour[2] * gain),
    )


_LAYER_GAINS = (0.5, 0.8, 1.0)
"""Brightness of contour, shadow side and lit side."""


class _Segment(NamedTuple):
    """A tapered piece of a limb between two landmarks; radii in metres."""

    start: np.ndarray
    start_radius: float
    end: np.ndarray
    end_radius: float
    colour: Colour
    part: Part


_HEAD_SHAPES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "skull": ((0.0, 0.0, 0.0), (0.8, 0.93, 0.9)),
    "jaw": ((0.0, -0.48, 0.2), (0.6, 0.6, 0.6)),
    "scalp": ((0.0, 0.16, -0.1), (0.87, 0.9, 0.9)),
    "curls": ((0.0, 0.2, -0.12), (1.08, 1.08, 1.08)),
    "bun": ((0.0, 0.85, -0.7), (0.42, 0.42, 0.42)),
    "nose": ((0.0, -0.2, 0.93), (0.13, 0.17, 0.17)),
    "bridge": ((0.0, -0.13, 0.92), (0.08, 0.17, 0.15)),
}
"""Ellipsoids of the head by name: centre and half axes in head radii, head frame."""
for _side, _sign in (("left", 1.0), ("right", -1.0)):
    _HEAD_SHAPES |= {
        f"{_side}_ear": ((_sign * 0.82, -0.08, -0.02), (0.1, 0.24, 0.16)),
        f"{_side}_ear_inside": ((_sign * 0.84, -0.08, -0.02), (0.07, 0.19, 0.12)),
        f"{_side}_eye": ((_sign * 0.33, 0.04, 0.84), (0.17, 0.12, 0.06)),
        f"{_side}_iris": ((_sign * 0.33, 0.03, 0.88), (0.085, 0.1, 0.04)),
        f"{_side}_brow": ((_sign * 0.34, 0.28, 0.82), (0.2, 0.045, 0.08)),
        f"{_side}_rim": ((_sign * 0.34, 0.03, 0.9), (0.27, 0.22, 0.05)),
        f"{_side}_lens": ((_sign * 0.34, 0.03, 0.9), (0.21, 0.16, 0.04)),
    }
_HEAD_CENTRES = np.array([place for place, _ in _HEAD_SHAPES.values()])
_HEAD_HALF_AXES = np.array([half_axes for _, half_axes in _HEAD_SHAPES.values()])

_FACE_PLACES = {
    "nose": ((0.0, -0.22, 1.04), (0.0, 0.0, 1.0), -0.08),
    "left_eye": ((0.33, 0.04, 0.86), (0.42, 0.05, 0.9), 0.08),
    "right_eye": ((-0.33, 0.04, 0.86), (-0.42, 0.05, 0.9), 0.08),
    "left_ear": ((0.84, -0.08, -0.02), (1.0, 0.0, 0.0), -0.22),
    "right_ear": ((-0.84, -0.08, -0.02), (-1.0, 0.0, 0.0), -0.22),
}
"""Facial keypoints: place in head radii, outward normal, least turn of it towards the viewer."""


class FigureDrawing:
    """One posed and dressed person, projected and cut into shapes.

    Args:
        body: the solved pose.
        look: build, clothes and colours.
        view: camera, place in the picture, light.
        painted: False leaves out what only the painted picture needs (the silhouette stays equal).

    Attributes:
        shapes: convex polygons in drawing order.
        keypoints: the 17 keypoints of COCO by name.
    """

    def __init__(
        self, body: PosedBody, look: Appearance, view: View, *, painted: bool = True
    ) -> None:
        """Project the body and draw it."""
        self._body, self._look, self._view, self._painted = body, look, view, painted
        camera_points = np.array(list(body.points.values())) @ view.rotation.T
        self._camera = dict(zip(body.points, camera_points, strict=True))
        self._placed = dict(zip(body.points, self._project(camera_points).tolist(), strict=True))
        self._head_axes = view.rotation @ self._body.frames["head"]
        self._chest_axes = view.rotation @ self._body.frames["chest"]
        self._head_radius = _HEAD_RADIUS * look.head_scale
        self._head_contours = self._outline_head()
        self.keypoints = self._locate_face() | self._locate_limbs()
        self.shapes = self._draw()

    def _project(self, camera_points: np.ndarray) -> np.ndarray:
        """(..., 3) camera frame -> (..., 2) picture."""
        gain = self._gain(camera_points[..., 2])[..., None]
        return self._view.origin + camera_points[..., :2] * (1.0, -1.0) * gain

    def _gain(self, depth: np.ndarray) -> np.ndarray:
        """Pixels per metre at a depth."""
        return self._view.scale * self._view.distance / (self._view.distance - depth)

    # ---- keypoints

    def _locate_limbs(self) -> dict[str, Keypoint]:
        located = {}
        for _, side, _ in _SIDES:
            upper, fore, thigh, shin = _limb_parts(side)
            own_parts = {
                "shoulder": {upper} | self._trunk_parts(side, "shoulder"),
                "elbow": {upper, fore},
                "wrist": {fore},
                "hip": {thigh} | self._trunk_parts(side, "hip"),
                "knee": {thigh, shin},
                "ankle": {shin},
            }
            for name, parts in own_parts.items():
                x, y = self._placed[f"{side}_{name}"]
                located[f"{side}_{name}"] = Keypoint(x, y, frozenset(parts))
        return located

    def _trunk_parts(self, side: str, name: str) -> set[Part]:
        """The trunk shows a shoulder or hip unless that is the far one of a side view."""
        other = "right" if side == "left" else "left"
        offset = self._camera[f"{side}_{name}"] - self._camera[f"{other}_{name}"]
        far = offset[2] < -0.65 * math.sqrt(offset @ offset)
        return set() if far else {Part.TORSO, Part.SKIRT}

    def _locate_face(self) -> dict[str, Keypoint]:
        """A facial keypoint shows where its place on the head is turned to the viewer."""
        places = np.array([place for place, _, _ in _FACE_PLACES.values()])
        centres = self._camera["head"] + places @ self._head_axes.T * self._head_radius
        points = self._project(centres).tolist()
        covered = {"left_ear", "right_ear"} if self._look.hair_style in ("long", "curly") else set()
        located = {}
        for (name, (_, normal, least_turn)), (x, y) in zip(
            _FACE_PLACES.items(), points, strict=True
        ):
            shown = name not in covered and self._head_axes[2] @ normal > least_turn
            located[name] = Keypoint(x, y, frozenset({Part.HEAD} if shown else ()))
        return located

    # ---- drawing order

    def _draw(self) -> list[Shape]:
        camera = self._camera
        limbs = self._draw_limbs()
        trunk_depth = 0.5 * (camera["waist"][2] + camera["neck"][2])
        units = [(trunk_depth, self._draw_trunk()), (camera["head"][2], self._draw_head(limbs))]
        for _, side, _ in _SIDES:
            reach = (camera[f"{side}_elbow"][2] + camera[f"{side}_wrist"][2]) / 2
            shoulder_depth = camera[f"{side}_shoulder"][2]
            units.append((0.6 * reach + 0.4 * shoulder_depth, limbs[f"{side}_arm"]))
            # Clothes of the trunk hang over the legs, unless a leg comes well forward (sitting).
            knee_depth = camera[f"{side}_knee"][2]
            over_trunk = knee_depth > max(trunk_depth, 0.0) + 0.16
            order = knee_depth if over_trunk else min(knee_depth, trunk_depth) - 1.0
            units.append((order, limbs[f"{side}_leg"]))
        if self._body.seated:
            units.append((-10.0, limbs["seat"] + self._draw_seat_top()))
        units.sort(key=lambda unit: unit[0])
        return [shape for _, shapes in units for shape in shapes]

    # ---- limbs

    def _draw_limbs(self) -> dict[str, list[Shape]]:
        """Contour, shadow side and lit side of every chain of tapered capsules, by chain."""
        chains = {"neck": [self._neck()], "back_hair": self._hanging_hair()}
        if self._body.seated:
            chains["seat"] = self._seat_legs()
        for _, side, _ in _SIDES:
            chains[f"{side}_arm"] = self._arm_segments(side)
            chains[f"{side}_leg"] = self._leg_segments(side)
        segments = [segment for chain in chains.values() for segment in chain]
        layers = self._limb_layers(segments)
        drawn, first = {}, 0
        for name, chain in chains.items():
            drawn[name] = [
                Shape(
                    polygon,
                    shade(segment.colour, gain),
                    segment.part if index == 0 else Part.DETAIL,
                )
                for index, (polygons, gain) in enumerate(zip(layers, _LAYER_GAINS, strict=False))
                for segment, polygon in zip(
                    chain, polygons[first : first + len(chain)], strict=True
                )
            ]
            first += len(chain)
        return drawn

    def _limb_layers(self, segments: list[_Segment]) -> np.ndarray:
        """(layers, N, 18, 2) polygons: the contour and, when painted, shadow and lit side."""
        camera = np.array([(s.start, s.end) for s in segments])
        metres = np.array([(s.start_radius, s.end_radius) for s in segments])
        gains = self._gain(camera[..., 2])
        centres, radii = self._project(camera), metres * gains
        all_centres, all_radii = [centres], [radii + self._view.outline * gains]
        if self._painted:
            all_centres += [centres, centres + 0.2 * radii[..., None] * self._view.light]
            all_radii += [radii, 0.8 * radii]
        ends, sizes = np.concatenate(all_centres), np.concatenate(all_radii)
        polygons = capsule_polygons(ends[:, 0], sizes[:, 0], ends[:, 1], sizes[:, 1])
        return polygons.reshape(len(all_centres), len(segments), -1, 2)

    def _arm_segments(self, side: str) -> list[_Segment]:
        look, camera = self._look, self._camera
        shoulder, elbow, wrist = (camera[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist"))
        hand, thumb = camera[f"{side}_hand"], camera[f"{side}_thumb"]
        upper, fore, _, _ = _limb_parts(side)
        girth = 0.5 + 0.5 * look.girth
        thick, middle, thin = 0.05 * girth, 0.041 * girth, 0.029 * girth
        segments = [
            _Segment(wrist, 0.03, hand, 0.03, look.skin, fore),
            _Segment(wrist, 0.018, thumb, 0.014, look.skin, fore),
            _Segment(elbow, middle, wrist, thin, look.skin, fore),
            _Segment(shoulder, thick, elbow, middle, look.skin, upper),
        ]
        if look.sleeve > 1.0:
            cuff = elbow + min(look.sleeve - 1.0, 0.96) * (wrist - elbow)
            segments.append(_Segment(elbow, middle + 0.008, cuff, thin + 0.012, look.shirt, fore))
        if look.sleeve > 0.0:
            cuff = shoulder + min(look.sleeve, 1.0) * (elbow - shoulder)
            opening = middle + (0.008 if look.sleeve > 1.0 else 0.018)
            segments.append(_Segment(shoulder, thick + 0.008, cuff, opening, look.shirt, upper))
        return segments

    def _leg_segments(self, side: str) -> list[_Segment]:
        look, camera = self._look, self._camera
        hip, knee, ankle = (camera[f"{side}_{n}"] for n in ("hip", "knee", "ankle"))
        heel, toe = camera[f"{side}_heel"], camera[f"{side}_toe"]
        _, _, thigh, shin = _limb_parts(side)
        clothed = look.bottom_style == "trousers"
        colour, cloth = (look.bottoms, 0.008) if clothed else (look.skin, 0.0)
        girth = 0.4 + 0.6 * look.girth
        thick, middle, thin = 0.08 * girth, 0.054 * girth + cloth, 0.036 * girth + 1.5 * cloth
        calf, bulge = knee + 0.3 * (ankle - knee), middle + 0.003
        foot = [
            _Segment(heel, 0.036, toe, 0.03, look.shoes, shin),
            _Segment(ankle, 0.038, 0.6 * heel + 0.4 * toe, 0.036, look.shoes, shin),
        ]
        lower = [
            _Segment(knee, middle, calf, bulge, colour, shin),
            _Segment(calf, bulge, ankle, thin, colour, shin),
        ]
        upper = [_Segment(hip, thick, knee, middle, colour, thigh)]
        if look.bottom_style == "shorts":
            cuff = hip + 0.72 * (knee - hip)
            upper.append(_Segment(hip, thick + 0.006, cuff, 0.078 * girth, look.bottoms, thigh))
        nearer_shin = ankle[2] > knee[2] > hip[2] + 0.2
        return upper + foot + lower if nearer_shin else foot + lower + upper

    def _seat_legs(self) -> list[_Segment]:
        """The legs of a stool, from below the pelvis to the level of the feet."""
        rotation, wood = self._view.rotation, shade(self._look.trim, 0.6)
        floor = min(self._body.points[f"{side}_heel"][1] for _, side, _ in _SIDES) - 0.03
        floor = min(floor, -0.25)
        return [
            _Segment(
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

    def _draw_seat_top(self) -> list[Shape]:
        rotation = self._view.rotation
        disc = _CIRCLE[:, :1] * rotation[:, 0] * 0.2 + _CIRCLE[:, 1:] * rotation[:, 2] * 0.2
        top = self._project(rotation @ (0, -0.12, 0.05) + disc)
        underside = self._project(rotation @ (0, -0.17, 0.05) + disc)
        return self._solid(_loft([top, underside]), shade(self._look.trim, 0.75), Part.OBJECT)

    # ---- trunk

    def _trunk_rings(self) -> np.ndarray:
        """(7, 20, 2) projected cross-sections from the crotch to the base of the neck."""
        look, chest_axes = self._look, self._chest_axes
        pelvis_axes = self._view.rotation @ self._body.frames["pelvis"]
        waist, origin = self._camera["waist"], np.zeros(3)
        hips, chest, girth = look.hip_scale, look.shoulder_scale, look.girth
        sections = (
            (pelvis_axes, origin, -0.085, 0.10 * hips, 0.08),
            (pelvis_axes, origin, 0.0, 0.163 * hips, 0.112),
            (pelvis_axes, origin, 0.07, 0.155 * hips, 0.108),
            (chest_axes, waist, 0.0, 0.132 * (0.4 + 0.6 * girth), 0.096 * girth),
            (chest_axes, waist, 0.18, 0.165 * chest, 0.118),
            (chest_axes, waist, 0.285, 0.175 * chest, 0.08),
            (chest_axes, waist, 0.335, 0.07, 0.06),
        )
        axes = np.array([section[0] for section in sections])
        centres = np.array([base + up * frame[:, 1] for frame, base, up, _, _ in sections])
        sizes = np.array([section[3:] for section in sections])
        across = _CIRCLE[None, :, :1] * (axes[:, :, 0] * sizes[:, :1])[:, None]
        through = _CIRCLE[None, :, 1:] * (axes[:, :, 2] * sizes[:, 1:])[:, None]
        return self._project(centres[:, None] + across + through)

    def _draw_trunk(self) -> list[Shape]:
        look = self._look
        rings = self._trunk_rings()
        shapes = self._solid(_loft(rings[:3]), look.bottoms, Part.TORSO)
        if look.bottom_style in ("skirt", "dress"):
            colour = look.shirt if look.bottom_style == "dress" else look.bottoms
            shapes += self._solid(_loft([rings[2], self._skirt_hem()]), colour, Part.SKIRT)
        shapes += self._solid(_loft(rings[2:]), look.shirt, Part.TORSO)
        if self._painted:
            shapes += self._draw_pattern(rings)
        return shapes

    def _skirt_hem(self) -> np.ndarray:
        """(20, 2) the projected hem, an ellipse round both thighs a little above the knees."""
        camera = self._camera
        hips = np.array([camera["left_hip"], camera["right_hip"]])
        knees = np.array([camera["left_knee"], camera["right_knee"]])
        left, right = hips + 0.85 * (knees - hips)
        between = left - right
        across = (0.5 + 0.1 / max(np.linalg.norm(between), 1e-6)) * between
        through = np.cross(across, 0.5 * (left + right) - hips.mean(axis=0))
        through *= 0.13 / max(np.linalg.norm(through), 1e-6)
        ring = 0.5 * (left + right) + _CIRCLE[:, :1] * across + _CIRCLE[:, 1:] * through
        return self._project(ring)

    def _draw_pattern(self, rings: np.ndarray) -> list[Shape]:
        """Stripes, a chest panel or a print on the shirt, and the belt."""
        look, bands = self._look, []
        if look.shirt_pattern == "stripes":
            bands = [(3 + k // 2, 0.1 + 0.5 * (k % 2), 0.28) for k in range(4)]
        elif look.shirt_pattern == "panel":
            bands = [(4, 0.0, 0.5)]
        inset = 0.01 * self._view.scale
        shapes = []
        for ring, start, width in bands:
            low, high = rings[ring], rings[ring + 1]
            edges = [low + start * (high - low), low + (start + width) * (high - low)]
            shapes += [Shape(_grown(hull, -inset), look.trim) for hull in _loft(edges)]
        if self._chest_axes[2, 2] > 0.15:
            shapes += self._draw_front(rings)
        if look.bottom_style in ("trousers", "shorts"):
            belt = _loft([rings[2], rings[2] + 0.18 * (rings[3] - rings[2])])
            shapes += [Shape(hull, shade(look.bottoms, 0.45)) for hull in belt]
        return shapes

    def _draw_front(self, rings: np.ndarray) -> list[Shape]:
        """What is only on the front of the shirt; ring corner 5 is the middle of the front."""
        look = self._look
        if look.shirt_pattern == "logo":
            chest = rings[4, 3:8].mean(axis=0)
            axes = self._chest_axes[:2, :2] * (0.06, 0.05)
            print_shape = chest + _CIRCLE @ axes.T * (1.0, -1.0) * self._view.scale
            return [Shape(print_shape, look.trim)]
        if look.shirt_pattern == "buttons":
            dot = 0.009 * self._view.scale * _CIRCLE
            places = 0.5 * (rings[2:5, 5] + rings[3:6, 5])
            return [Shape(place + dot, shade(look.shirt, 0.45)) for place in places]
        if look.shirt_pattern == "jacket":
            return [Shape(_hull(rings[2:6, [4, 6]].reshape(-1, 2)), look.trim)]
        return []

    def _solid(self, hulls: list[np.ndarray], colour: Colour, part: Part) -> list[Shape]:
        """Contour, shadow side and lit side of a union of convex hulls."""
        scale, light = self._view.scale, self._view.light
        contour, shadow, lit = (shade(colour, gain) for gain in _LAYER_GAINS)
        shapes = [Shape(_grown(hull, self._view.outline * scale), contour, part) for hull in hulls]
        if self._painted:
            shapes += [Shape(hull, shadow) for hull in hulls]
            shift = 0.02 * scale * light
            shapes += [Shape(_grown(hull, -0.014 * scale) + shift, lit) for hull in hulls]
        return shapes

    # ---- head

    def _at_head(self, x: float, y: float, z: float) -> np.ndarray:
        """A place in head radii from the head's centre, in the camera frame."""
        return self._camera["head"] + self._head_axes @ (x, y, z) * self._head_radius

    def _outline_head(self) -> dict[str, np.ndarray]:
        """(20, 2) projected contour of each of the head's ellipsoids."""
        centres = self._camera["head"] + _HEAD_CENTRES @ self._head_axes.T * self._head_radius
        spread = self._head_axes[None, :2] * (_HEAD_HALF_AXES * self._head_radius)[:, None]
        # The farthest point of an ellipse in direction u is C u / sqrt(u' C u).
        reach = _CIRCLE @ (spread @ spread.transpose(0, 2, 1))
        offsets = reach / np.sqrt((reach * _CIRCLE).sum(axis=-1, keepdims=True) + 1e-12)
        gains = self._gain(centres[:, 2])[:, None, None]
        contours = self._project(centres)[:, None] + offsets * (1.0, -1.0) * gains
        return dict(zip(_HEAD_SHAPES, contours, strict=True))

    def _cap(self, shape: str, swell: float, towards: np.ndarray, reach: float) -> list[np.ndarray]:
        """Visible part of a head ellipsoid's surface within ``reach`` (a cosine) of a direction."""
        place, half_axes = _HEAD_SHAPES[shape]
        on_cap = _SPHERE[_SPHERE @ towards > reach]
        on_cap = on_cap * half_axes * (swell * self._head_radius)
        points = on_cap @ self._head_axes.T
        visible = points[points[:, 2] > -0.012]
        if len(visible) < 4:
            return []
        return [_hull(self._project(self._at_head(*place) + visible))]

    def _neck(self) -> _Segment:
        nape = self._at_head(0.0, -0.5, -0.1)
        return _Segment(self._camera["neck"], 0.05, nape, 0.048, self._look.skin, Part.HEAD)

    def _hanging_hair(self) -> list[_Segment]:
        """Long hair or a pony tail behind the head."""
        radius, colour = self._head_radius, self._look.hair
        if self._look.hair_style == "long":
            root, tip = self._at_head(0.0, 0.1, -0.25), self._at_head(0.0, -1.35, -0.45)
            return [_Segment(root, 0.86 * radius, tip, 0.72 * radius, colour, Part.HEAD)]
        if self._look.hair_style == "tail":
            root, tip = self._at_head(0.0, 0.35, -1.0), self._at_head(0.0, -0.9, -1.35)
            return [_Segment(root, 0.25 * radius, tip, 0.16 * radius, colour, Part.HEAD)]
        return []

    def _draw_head(self, limbs: dict[str, list[Shape]]) -> list[Shape]:
        look, contours = self._look, self._head_contours
        back = limbs["back_hair"]
        if look.hair_style == "bun":
            back = self._solid([contours["bun"]], look.hair, Part.HEAD)
        skull = self._solid([contours["skull"], contours["jaw"]], look.skin, Part.HEAD)
        front = limbs["neck"] + skull + self._draw_hair() + self._draw_face()
        if look.hair_style == "cap":
            front += self._draw_cap()
        faces_viewer = self._head_axes[2, 2] > 0
        return back + front if faces_viewer else front + back

    def _draw_hair(self) -> list[Shape]:
        """Hair over the skull, then the face left free by the hairline."""
        look = self._look
        if look.hair_style == "bald":
            return []
        scalp = self._head_contours["curls" if look.hair_style == "curly" else "scalp"]
        shapes = self._solid([scalp], look.hair, Part.HEAD)
        if self._painted:
            face = self._cap("skull", 1.01, _FACE_DIRECTION, 0.42)
            if self._head_axes[2, 2] > -0.3:
                face += self._cap("jaw", 1.0, _CHIN_DIRECTION, -0.1)
            shapes += [Shape(hull, look.skin) for hull in face]
        return shapes

    def _draw_cap(self) -> list[Shape]:
        """A cap with a brim over the forehead."""
        colour, size = self._look.trim, self._head_radius * np.array((0.93, 1.02, 0.98))
        crown = _SPHERE[_SPHERE[:, 1] > 0.18] * size
        brim = self._head_radius * _BRIM
        hulls = [
            _hull(self._project(self._camera["head"] + points @ self._head_axes.T))
            for points in (crown, brim)
        ]
        return self._solid(hulls[:1], colour, Part.HEAD) + self._solid(
            hulls[1:], shade(colour, 0.85), Part.HEAD
        )

    def _draw_face(self) -> list[Shape]:
        look, contours = self._look, self._head_contours
        facing = self._head_axes[2, 2]
        shapes = self._draw_ears()
        if self._painted and look.beard and facing > -0.2:
            beard = self._cap("jaw", 1.05, _BEARD_DIRECTION, 0.45)
            shapes += [Shape(hull, look.hair) for hull in beard]
        if self._painted and facing > 0.15:
            shapes += self._draw_mouth()
        for side in ("left", "right"):
            if self._painted and self.keypoints[f"{side}_eye"].shown_by:
                shapes += self._draw_eye(side)
        if self.keypoints["nose"].shown_by:
            shapes.append(Shape(contours["nose"], shade(look.skin, 0.84), Part.HEAD))
            shapes.append(Shape(contours["bridge"], shade(look.skin, 1.04)))
        return shapes

    def _draw_ears(self) -> list[Shape]:
        contours, skin = self._head_contours, self._look.skin
        shapes = []
        for ear in ("left_ear", "right_ear"):
            if self.keypoints[ear].shown_by:
                rim = _grown(contours[ear], self._view.outline * self._view.scale)
                shapes.append(Shape(rim, shade(skin, _LAYER_GAINS[0]), Part.HEAD))
                shapes.append(Shape(contours[f"{ear}_inside"], shade(skin, 0.9)))
        return shapes

    def _draw_eye(self, side: str) -> list[Shape]:
        """White (or glasses), iris and brow."""
        contours = self._head_contours
        if self._look.glasses:
            ground = [
                Shape(contours[f"{side}_rim"], (28.0, 28.0, 34.0)),
                Shape(contours[f"{side}_lens"], (205.0, 220.0, 228.0)),
            ]
        else:
            ground = [Shape(contours[f"{side}_eye"], (246.0, 244.0, 240.0))]
        iris = Shape(contours[f"{side}_iris"], (36.0, 26.0, 24.0))
        brow = Shape(contours[f"{side}_brow"], shade(self._look.hair, 0.75))
        return [*ground, iris, brow]

    def _draw_mouth(self) -> list[Shape]:
        lift = 0.09 * self._look.smile
        places = ((-0.26, -0.6 + lift, 0.7), (0.0, -0.6, 0.79), (0.26, -0.6 + lift, 0.7))
        centres = self._project(np.array([self._at_head(*place) for place in places]))
        radii = np.full(2, 0.05 * self._head_radius * self._view.scale)
        red, green, blue = self._look.skin
        lips = (0.8 * red, 0.5 * green, 0.5 * blue)
        polygons = capsule_polygons(centres[:2], radii, centres[1:], radii)
        return [Shape(polygon, lips) for polygon in polygons]


def _limb_parts(side: str) -> tuple[Part, Part, Part, Part]:
    """Upper arm, forearm, thigh and shin of a side."""
    if side == "left":
        return Part.LEFT_UPPER_ARM, Part.LEFT_FOREARM, Part.LEFT_THIGH, Part.LEFT_SHIN
    return Part.RIGHT_UPPER_ARM, Part.RIGHT_FOREARM, Part.RIGHT_THIGH, Part.RIGHT_SHIN


def _hull(points: np.ndarray) -> np.ndarray:
    """(V, 2) convex hull of (N, 2) points."""
    return cv2.convexHull(points.astype(np.float32))[:, 0].astype(float)


def _loft(rings: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    """Hulls of neighbouring projected cross-sections, (V, 2) each."""
    return [_hull(np.concatenate((rings[i], rings[i + 1]))) for i in range(len(rings) - 1)]


def _grown(polygon: np.ndarray, distance: float) -> np.ndarray:
    """``polygon`` with its corners moved outwards from its centre by about ``distance`` pixels."""
    offset = polygon - polygon.sum(axis=0) / len(polygon)
    length = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)[:, None]
    return polygon + offset * np.maximum(distance / length, -0.9)
