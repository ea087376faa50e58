"""Things that float about behind people and may be mistaken for them."""

from __future__ import annotations

import numpy as np

from querypose.synthetic.color import Color, sample_color, shade
from querypose.synthetic.polygons import capsule_polygons, disc
from querypose.synthetic.shapes import Shape, box_shapes, line_shapes


def sample_clutter(rng: np.random.Generator, width: int, height: int) -> list[Shape]:
    """A ball, a crate, a fan of lines, or two capsules that look like a limb."""
    place, size = rng.uniform(0, (width, height)), rng.uniform(0.02, 0.12) * min(width, height)
    color, kind = sample_color(rng), rng.integers(4)
    if kind == 0:
        lit = place - 0.2 * size
        return [Shape(disc(place, size), shade(color, 0.7)), Shape(disc(lit, 0.7 * size), color)]
    if kind == 1:
        x, y = place
        return box_shapes(x - size, y - size, x + size, y + rng.uniform(0.2, 1.5) * size, color)
    if kind == 2:
        ends = place + rng.normal(0.0, 4 * size, (6, 2))
        return line_shapes(np.tile(place, (6, 1)), ends, rng.uniform(0.4, 2.0), color)
    return _limb_lookalike(rng, place, size, color)


def _limb_lookalike(
    rng: np.random.Generator, place: np.ndarray, size: float, color: Color
) -> list[Shape]:
    bend, end = place + rng.normal(0.0, 1.8 * size, 2), place + rng.normal(0.0, 2.5 * size, 2)
    starts, stops = np.stack([place, bend]), np.stack([bend, end])
    radii = 0.3 * size * np.array([1.0, 0.8, 0.55])
    polygons = [
        *capsule_polygons(starts, 1.15 * radii[:2], stops, 1.15 * radii[1:]),
        *capsule_polygons(starts, radii[:2], stops, radii[1:]),
    ]
    tones = [shade(color, 0.5)] * 2 + [color] * 2
    return [Shape(polygon, tone) for polygon, tone in zip(polygons, tones, strict=True)]
