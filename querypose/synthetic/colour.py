"""Colours: RGB, 0..255."""

from __future__ import annotations

import numpy as np

Colour = tuple[float, float, float]


def shade(colour: Colour, gain: float) -> Colour:
    """``colour`` made darker (``gain`` < 1) or brighter (> 1), within 0..255."""
    return (
        min(255.0, colour[0] * gain),
        min(255.0, colour[1] * gain),
        min(255.0, colour[2] * gain),
    )


def sample_colour(rng: np.random.Generator) -> Colour:
    """Draw any colour, from vivid to almost grey."""
    red, green, blue = rng.uniform(20.0, 240.0, 3).tolist()
    grey, share = (red + green + blue) / 3.0, rng.uniform(0.0, 0.8)
    return (
        grey * share + red * (1.0 - share),
        grey * share + green * (1.0 - share),
        grey * share + blue * (1.0 - share),
    )


def sample_tint(rng: np.random.Generator, colour: Colour) -> Colour:
    """Draw a variant of ``colour``."""
    red, green, blue = np.clip(np.array(colour) * rng.uniform(0.6, 1.4, 3), 0, 255).tolist()
    return (red, green, blue)
