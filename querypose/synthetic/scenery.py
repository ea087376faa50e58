"""Places where people are: the colors of the ground and walls, and what stands there."""

from __future__ import annotations

import cv2
import numpy as np

from querypose.synthetic.color import sample_color, sample_tint, shade
from querypose.synthetic.polygons import convex_hull, disc, rectangle
from querypose.synthetic.shapes import Shape, box_shapes, line_shapes

Scenery = tuple[np.ndarray, list[Shape]]
"""An (H, W, 3) uint8 canvas and the shapes to paint on it."""


def _gradient(colors: list[np.ndarray], width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 that runs through the colors from top to bottom."""
    column = np.array(colors).clip(0, 255).astype(np.uint8)[:, None]
    return cv2.resize(column, (width, height), interpolation=cv2.INTER_LINEAR)


def sample_outdoors(rng: np.random.Generator, width: int, height: int, horizon: float) -> Scenery:
    """Sky, hills or houses or trees, and the ground."""
    sky = rng.uniform((90, 130, 170), (190, 220, 255))
    ground = rng.uniform((70, 80, 50), (190, 180, 150))
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    edge = int(horizon)
    canvas[:edge] = _gradient([sky, sky * rng.uniform(1.0, 1.3)], width, edge)
    canvas[edge:] = _gradient([ground, ground * rng.uniform(0.6, 1.2)], width, height - edge)
    shapes: list[Shape] = []
    for _ in range(rng.integers(1, 7)):
        x, tall = rng.uniform(0, width), rng.uniform(0.2, 0.9) * horizon
        kind = rng.integers(3)
        if kind == 0:
            shapes += _house(rng, x, tall, horizon)
        elif kind == 1:
            shapes += _tree(rng, x, tall, horizon + rng.uniform(0.0, 0.1) * height)
        else:
            hill = disc((x, horizon + 1), (rng.uniform(1.0, 3.0) * tall, 0.5 * tall))[8:]
            shapes.append(Shape(hill, sample_tint(rng, (90, 130, 80))))
    return canvas, shapes


def _house(rng: np.random.Generator, x: float, tall: float, floor: float) -> list[Shape]:
    color, half = sample_color(rng), rng.uniform(0.3, 0.7) * tall
    shapes = box_shapes(x - half, floor - tall, x + half, floor, color)
    pane = 0.16 * half
    return shapes + [
        Shape(rectangle(px - pane, py - pane, px + pane, py + 1.4 * pane), shade(color, 0.45))
        for px in (x - 0.55 * half, x, x + 0.55 * half)
        for py in np.arange(floor - tall + 3 * pane, floor - 2 * pane, 4.5 * pane)[:6]
    ]


def _tree(rng: np.random.Generator, x: float, tall: float, floor: float) -> list[Shape]:
    trunk, leaves = sample_tint(rng, (100, 70, 45)), sample_tint(rng, (70, 125, 55))
    thick = 0.05 * tall
    spots = rng.uniform(-1.0, 1.0, (9, 2)) * (0.26 * tall, 0.2 * tall) + (x, floor - 0.8 * tall)
    return [
        Shape(rectangle(x - thick, floor - 0.75 * tall, x + thick, floor), trunk),
        *(
            Shape(disc(spot, 0.2 * tall), shade(leaves, gain))
            for spot, gain in zip(spots, rng.uniform(0.75, 1.15, 9).tolist(), strict=True)
        ),
    ]


def sample_indoors(rng: np.random.Generator, width: int, height: int, horizon: float) -> Scenery:
    """A wall with images, windows or shelves, and a floor."""
    wall, floor = np.array(sample_color(rng)), np.array(sample_tint(rng, (150, 115, 80)))
    edge = int(min(height, horizon + 0.25 * height))
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:edge] = _gradient([wall, wall * rng.uniform(0.75, 1.15)], width, edge)
    canvas[edge:] = _gradient([floor, floor * rng.uniform(0.7, 1.2)], width, height - edge)
    skirting = Shape(
        rectangle(-5, edge - 0.02 * height, width + 5, edge), tuple((wall * 0.6).tolist())
    )
    seams = np.linspace(-1.0, 2.0, rng.integers(2, 14)) * width
    tops = np.stack([seams, np.full_like(seams, edge)], axis=1)
    feet = np.stack([2.5 * seams - 0.75 * width, np.full_like(seams, height)], axis=1)
    shapes = [skirting, *line_shapes(tops, feet, 0.6, tuple((floor * 0.7).tolist()))]
    for _ in range(rng.integers(1, 6)):
        (x, y), (half_x, half_y) = rng.uniform(0, (width, edge)), rng.uniform(0.03, 0.16, 2) * width
        shapes += box_shapes(x - half_x, y - half_y, x + half_x, y + half_y, sample_color(rng))
        inner = rectangle(x - 0.7 * half_x, y - 0.7 * half_y, x + 0.7 * half_x, y + 0.7 * half_y)
        shapes.append(Shape(inner, sample_color(rng)))
    return canvas, shapes


def sample_abstract(rng: np.random.Generator, width: int, height: int, horizon: float) -> Scenery:
    """A gradient with large random shapes."""
    canvas = _gradient([np.array(sample_color(rng)) for _ in range(3)], width, height)
    shapes = []
    for center in rng.uniform(0, (width, height), (rng.integers(0, 10), 2)):
        corners = center + rng.normal(0.0, 0.18 * width, (5, 2))
        shapes.append(Shape(convex_hull(corners), sample_color(rng)))
    return canvas, shapes
