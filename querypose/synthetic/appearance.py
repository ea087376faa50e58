"""What a person looks like: build, hair, clothes and colors."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from querypose.synthetic.color import Color


@dataclass(frozen=True)
class Appearance:
    """Build, clothes and colors of one figure (RGB, 0..255; sizes relative to an adult).

    ``sleeve`` is how far the sleeve comes down: 0 none, 1 to the elbow, 2 to the wrist. ``smile``
    is how far the corners of the mouth are lifted.
    """

    skin: Color
    hair: Color
    shirt: Color
    trim: Color
    bottoms: Color
    shoes: Color
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
_LEG_STYLES = ("trousers", "trousers", "trousers", "shorts", "shorts")
_BOTTOM_STYLES = (*_LEG_STYLES, "skirt", "dress")
_SLEEVES = (0.0, 0.5, 0.6, 2.0, 2.0, 1.4)
_SHIRT_PATTERNS = ("plain", "plain", "plain", "stripes", "panel", "logo", "buttons", "jacket")


def _cloth_color(rng: np.random.Generator) -> Color:
    """Draw a muted or a vivid color."""
    hue = rng.integers(180)
    saturation, value = (
        (rng.integers(0, 50), rng.integers(25, 245))
        if rng.random() < 0.4
        else (rng.integers(90, 225), rng.integers(70, 245))
    )
    pixel = np.array([[[hue, saturation, value]]], dtype=np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return (red, green, blue)


def _between(rng: np.random.Generator, tones: np.ndarray) -> Color:
    """Draw a mixture of two neighboring tones, of (N, 3)."""
    place = rng.integers(len(tones) - 1)
    red, green, blue = (tones[place] + rng.random() * (tones[place + 1] - tones[place])).tolist()
    return (red, green, blue)


def _varied(rng: np.random.Generator, tones: np.ndarray) -> Color:
    """Draw one of (N, 3) tones, a little darker or brighter."""
    red, green, blue = np.clip(tones[rng.integers(len(tones))] * rng.uniform(0.85, 1.12), 0, 255)
    return (float(red), float(green), float(blue))


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draw build, clothes and colors; about one figure in six has a child's proportions."""
    child = rng.random() < 0.16
    hair_style = _HAIR_STYLES[rng.integers(len(_HAIR_STYLES))]
    long_hair = hair_style in ("long", "bun", "tail")
    bottom_styles = _BOTTOM_STYLES if long_hair else _LEG_STYLES
    return Appearance(
        skin=_between(rng, _SKIN_TONES),
        hair=_varied(rng, _HAIR_TONES),
        shirt=_cloth_color(rng),
        trim=_cloth_color(rng),
        bottoms=_cloth_color(rng),
        shoes=_cloth_color(rng),
        hair_style=hair_style,
        bottom_style=bottom_styles[rng.integers(len(bottom_styles))],
        sleeve=_SLEEVES[rng.integers(len(_SLEEVES))],
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
