"""How a person holds the body: drawn from families of everyday poses."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]


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
