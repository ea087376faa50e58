"""Colors: RGB, 0..255."""

from __future__ import annotations

import numpy as np

Color = tuple[float, float, float]


def shade(color: Color, gain: float) -> Color:
    """``color`` made darker (``gain`` < 1) or brighter (> 1), within 0..255."""
    return (
        min(255.0, color[0] * gain),
        min(255.0, color[1] * gain),
        min(255.0, color[2] * gain),
    )


def sample_color(rng: np.random.Generator) -> Color:
    """Draw any color, from vivid to almost gray."""
    red, green, blue = rng.uniform(20.0, 240.0, 3).tolist()
    gray, share = (red + green + blue) / 3.0, rng.uniform(0.0, 0.8)
    return (
        gray * share + red * (1.0 - share),
        gray * share + green * (1.0 - share),
        gray * share + blue * (1.0 - share),
    )


def sample_tint(rng: np.random.Generator, color: Color) -> Color:
    """Draw a variant of ``color``."""
    red, green, blue = np.clip(np.array(color) * rng.uniform(0.6, 1.4, 3), 0, 255).tolist()
    return (red, green, blue)
