"""What is painted behind the people; nothing of it is annotated."""

from __future__ import annotations

import cv2
import numpy as np

from querypose.synthetic.clutter import sample_clutter
from querypose.synthetic.kinematics import SIDES
from querypose.synthetic.polygons import disc
from querypose.synthetic.scene import Person, Scene
from querypose.synthetic.scenery import (
    sample_abstract,
    sample_indoors,
    sample_outdoors,
)
from querypose.synthetic.shapes import Shape, paint_shapes

_SCENERIES = (sample_outdoors, sample_indoors, sample_abstract)
_SCENERY_ODDS = (0.4, 0.35, 0.25)


def paint_backdrop(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Scenery, clutter and the shadows of the people.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    width, height = scene.width, scene.height
    sample_scenery = _SCENERIES[rng.choice(len(_SCENERIES), p=_SCENERY_ODDS)]
    canvas, shapes = sample_scenery(rng, width, height, scene.horizon)
    for _ in range(rng.integers(0, 10)):
        shapes += sample_clutter(rng, width, height)
    paint_shapes(canvas, shapes)
    canvas = _mottle(rng, canvas)
    for person in scene.people:
        _cast_shadow(canvas, person)
    return canvas


def _mottle(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Cloudy and grainy variation of color."""
    cells = int(rng.integers(24, 64))
    coarse = rng.integers(0, 256, (rng.integers(3, 9), rng.integers(3, 9), 3), dtype=np.uint8)
    coarse = cv2.resize(coarse, (cells, cells), interpolation=cv2.INTER_LINEAR)
    fine = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    blend = cv2.addWeighted(coarse, 0.6, fine, rng.uniform(0.0, 0.6), 0.0)
    strength = rng.uniform(0.0, 0.25)
    blend = cv2.resize(blend, canvas.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.addWeighted(canvas, 1.0, blend, strength, -120.0 * strength, dst=canvas)


def _cast_shadow(canvas: np.ndarray, person: Person) -> None:
    """A soft dark patch below the feet of an upright figure."""
    view, points = person.view, person.body.points
    if view.rotation[1, 1] < 0.8:
        return
    feet = np.array([points[f"{side}_{end}"] for side in SIDES for end in ("heel", "toe")])
    feet = view.origin + (feet @ view.rotation.T)[:, :2] * (view.scale, -view.scale)
    center, reach = feet.mean(axis=0), np.ptp(feet[:, 0]) / 2 + 0.12 * view.scale
    center[1] = feet[:, 1].max() + 0.02 * view.scale
    margin = np.array((reach + 2.0, 0.3 * reach + 2.0))
    left, top = np.maximum(center - margin, 0).astype(int)
    right, bottom = np.maximum(center + margin, 0).astype(int)
    patch = canvas[top:bottom, left:right]
    if patch.size:
        dark = Shape(disc(center, (reach, 0.3 * reach)) - (left, top), (0, 0, 0))
        shadowed = patch.copy()
        paint_shapes(shadowed, [dark])
        patch[:] = cv2.addWeighted(patch, 0.6, shadowed, 0.4, 0.0)
