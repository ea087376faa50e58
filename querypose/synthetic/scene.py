"""Who is in an image, and where: a function of the dataset's seed and the image's index."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from querypose.synthetic.appearance import Appearance, sample_appearance
from querypose.synthetic.foreground import sample_foreground
from querypose.synthetic.kinematics import PosedBody, pose_body, rotation_about
from querypose.synthetic.pose import sample_pose
from querypose.synthetic.projection import View
from querypose.synthetic.shapes import Shape

MAX_PEOPLE = 8
_COUNT_ODDS = np.array([0.24, 0.22, 0.18, 0.12, 0.09, 0.06, 0.05, 0.04])


@dataclass(frozen=True)
class Person:
    """One figure of a scene."""

    body: PosedBody
    look: Appearance
    view: View


@dataclass(frozen=True)
class Scene:
    """Everything that decides the annotations of an image.

    Attributes:
        seed: of the dataset.
        index: of the image in it.
        width: pixels.
        height: pixels.
        horizon: pixels from the top.
        people: from the farthest to the nearest.
        foreground: objects in front of everybody, in drawing order.
    """

    seed: int
    index: int
    width: int
    height: int
    horizon: float
    people: tuple[Person, ...]
    foreground: tuple[Shape, ...]


@dataclass(frozen=True)
class _Camera:
    """What the figures of a scene share; angles in radians, lengths in meters."""

    light: np.ndarray
    elevation: float
    distance: float
    outline: float


def sample_scene(seed: int, index: int, width: int, height: int, max_people: int) -> Scene:
    """Draw the scene of image ``index``: 1 to ``max_people`` figures and what hides them."""
    rng = np.random.default_rng([seed, index, 0])
    odds = _COUNT_ODDS[:max_people] / _COUNT_ODDS[:max_people].sum()
    count = 1 + int(rng.choice(max_people, p=odds))
    horizon = height * rng.uniform(0.15, 0.6)
    light_angle = rng.uniform(-math.pi, 0.0)
    camera = _Camera(
        light=np.array([math.cos(light_angle), math.sin(light_angle)]),
        elevation=math.radians(rng.uniform(-6.0, 24.0)),
        distance=rng.uniform(3.5, 9.0),
        outline=rng.uniform(0.002, 0.009),
    )
    largest = min(height, 1.3 * width) * rng.uniform(0.4, 1.5 if count <= 2 else 1.0) / 1.75
    on_ground = rng.random() < 0.65
    nearness = np.sort(rng.uniform(0.3 if count > 2 else 0.5, 1.0, count))
    nearness /= nearness[-1]
    near_floor = height * rng.uniform(0.82, 1.2)
    people: list[Person] = []
    for near in nearness.tolist():
        floor = horizon + near * (near_floor - horizon) if on_ground else None
        people.append(_sample_person(rng, camera, near * largest, floor, people, (width, height)))
    foreground = []
    if rng.random() < 0.3:
        # Nothing covers the nearest figure above the pelvis: every image shows somebody.
        foreground = sample_foreground(rng, width, height, people[-1].view.origin[1])
    return Scene(seed, index, width, height, horizon, tuple(people), tuple(foreground))


def _sample_person(
    rng: np.random.Generator,
    camera: _Camera,
    scale: float,
    floor: float | None,
    others: list[Person],
    size: tuple[int, int],
) -> Person:
    """A figure whose lowest point is at ``floor`` (pixels), or anywhere when that is None."""
    look = sample_appearance(rng)
    body = pose_body(sample_pose(rng), look)
    facing = rng.normal(0.0, 0.6) if rng.random() < 0.5 else rng.uniform(-math.pi, math.pi)
    roll = rng.uniform(-math.pi, math.pi) if rng.random() < 0.07 else rng.normal(0.0, 0.05)
    rotation = (
        rotation_about(2, roll) @ rotation_about(0, camera.elevation) @ rotation_about(1, facing)
    )
    waist = rotation @ body.points["waist"] * (scale, -scale, 0.0)
    lowest = -scale * min(float(rotation[1] @ point) for point in body.points.values())
    x = _choose_column(rng, others, scale, size[0])
    y = rng.uniform(0.15, 0.85) * size[1] if floor is None else floor - lowest
    # The waist stays inside, so that borders cut figures but never swallow them.
    x = np.clip(x + waist[0], 0.03 * size[0], 0.97 * size[0]) - waist[0]
    y = np.clip(y + waist[1], 0.1 * size[1], 0.92 * size[1]) - waist[1]
    view = View(rotation, camera.distance, scale, np.array((x, y)), camera.light, camera.outline)
    return Person(body, look, view)


def _choose_column(
    rng: np.random.Generator, others: list[Person], scale: float, width: int
) -> float:
    """Beside somebody (people overlap) or where there is most room."""
    if others and rng.random() < 0.35:
        neighbor = others[rng.integers(len(others))].view.origin[0]
        return neighbor + rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.6) * scale
    candidates = rng.uniform(0.0, 1.0, 5) * width
    taken = np.array([person.view.origin[0] for person in others])
    if not len(taken):
        return float(candidates[0])
    room = np.abs(candidates[:, None] - taken).min(axis=1)
    return float(candidates[room.argmax()])
