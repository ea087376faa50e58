"""Objects in front of everybody."""

from __future__ import annotations

import numpy as np

from querypose.synthetic.color import sample_color, shade
from querypose.synthetic.polygons import disc
from querypose.synthetic.shapes import Part, Shape, box_shapes


def sample_foreground(
    rng: np.random.Generator, width: int, height: int, clear_above: float
) -> list[Shape]:
    """A thin post, or a low wall or a bush below ``clear_above`` (pixels), to hide behind."""
    kind = rng.integers(3)
    color = sample_color(rng)
    if kind == 0:
        x, radius = rng.uniform(0.0, width), rng.uniform(0.008, 0.025) * width
        return box_shapes(x - radius, -9.0, x + radius, height + 9.0, color)
    if kind == 1:
        top = max(rng.uniform(0.72, 0.9) * height, clear_above)
        left = rng.uniform(-0.1, 0.7) * width
        return box_shapes(left, top, left + rng.uniform(0.2, 0.7) * width, height + 9.0, color)
    x, leaf = rng.uniform(0.0, width), rng.uniform(0.04, 0.07) * min(width, height)
    spots = rng.uniform((-2.5, -1.2), (2.5, 1.5), (14, 2)) * leaf
    spots += (x, max(0.95 * height, clear_above + 2.2 * leaf))
    return [
        Shape(disc(spot, leaf), shade(color, gain), Part.OBJECT)
        for spot, gain in zip(spots, rng.uniform(0.6, 1.1, 14).tolist(), strict=True)
    ]
