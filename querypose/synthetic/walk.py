"""Generated people who walk past each other: a clip that needs no file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from querypose.synthetic.appearance import Appearance, sample_appearance
from querypose.synthetic.kinematics import pose_body, rotation_about
from querypose.synthetic.painting import render
from querypose.synthetic.pose import Pose
from querypose.synthetic.projection import View
from querypose.synthetic.scene import Person, Scene

FRAME_RATE = 12.5
"""Frames a second of :func:`walking_people`."""

_METERS_A_SECOND = 1.2
_STEPS_A_SECOND = 1.8
_HORIZON = 0.4
_CAMERA_DISTANCE = 7.0
# Away from the profile, in which one half of the body hides the other.
_TURN = math.radians(50)


@dataclass(frozen=True)
class _Walker:
    """Someone who walks to the right (direction 1) or to the left (-1).

    Attributes:
        middle: where in the image's width (0..1) the walker is halfway through the clip.
        floor: where in its height the feet are.
        size: height of a person of 1.75 m, as a share of the image's.
        phase: of the gait halfway through the clip, radians.
    """

    look: Appearance
    direction: int
    middle: float
    floor: float
    size: float
    phase: float


def walking_people(
    num_frames: int, *, num_people: int = 3, seed: int = 0, image_size: tuple[int, int] = (384, 288)
) -> Iterator[np.ndarray]:
    """Renders a clip in which people cross each other's way.

    Args:
        num_frames: at :data:`FRAME_RATE`.
        num_people: walkers, the nearest last.
        seed: of their looks and of the scene.
        image_size: width and height in pixels.

    Yields:
        (H, W, 3) uint8, RGB.
    """
    rng = np.random.default_rng([seed, num_people])
    walkers = [_sample_walker(rng, rank, num_people) for rank in range(num_people)]
    width, height = image_size
    for frame in range(num_frames):
        seconds = (frame - num_frames / 2) / FRAME_RATE
        people = tuple(_place(walker, seconds, image_size) for walker in walkers)
        yield render(Scene(seed, 0, width, height, _HORIZON * height, people, ()))


def _sample_walker(rng: np.random.Generator, rank: int, num_people: int) -> _Walker:
    near = (rank + 1) / num_people
    return _Walker(
        look=sample_appearance(rng),
        direction=1 if rank % 2 else -1,
        middle=rng.uniform(0.3, 0.7),
        floor=0.78 + 0.17 * near,
        size=0.5 + 0.3 * near,
        phase=rng.uniform(0, 2 * math.pi),
    )


def _place(walker: _Walker, seconds: float, image_size: tuple[int, int]) -> Person:
    width, height = image_size
    scale = walker.size * height / 1.75
    rotation = rotation_about(0, math.radians(6)) @ rotation_about(1, walker.direction * _TURN)
    body = pose_body(
        _stride(walker.phase + math.pi * _STEPS_A_SECOND * seconds),
        walker.look,
    )
    lowest = -scale * min(float(rotation[1] @ point) for point in body.points.values())
    x = walker.middle * width + walker.direction * _METERS_A_SECOND * scale * seconds
    origin = np.array((x, walker.floor * height - lowest))
    light = np.array((math.sqrt(0.5), -math.sqrt(0.5)))
    return Person(body, walker.look, View(rotation, _CAMERA_DISTANCE, scale, origin, light, 0.004))


def _stride(phase: float) -> Pose:
    """A moment of the gait; two steps are 2 pi."""
    swing = np.array((math.sin(phase), -math.sin(phase)))
    # A leg bends while it swings to the front.
    bend = np.array((math.cos(phase), -math.cos(phase))).clip(min=0)
    still = np.zeros(2)
    legs = np.stack((25 * swing, still + 3, still + 6, 8 + 45 * bend), axis=1)
    arms = np.stack((-25 * swing, still + 7, still + 10, 15 - 15 * swing), axis=1)
    return Pose(
        torso=np.radians((4.0, 0.0, 0.0)),
        head=np.zeros(3),
        arms=np.radians(arms),
        legs=np.radians(legs),
    )
