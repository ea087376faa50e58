"""Generated people: a keypoint dataset that needs no files and is the same on every machine.

A picture is a function of its path, ``synthetic://people/{seed}/{width}x{height}/{max_people}/
{index}.png``. Detectron2's own file layer renders it when a loader, mapper or visualiser opens that
path; the records come from the same scene without painting it.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathHandler, PathManager
from pycocotools import mask as mask_util

from querypose.data.datasets.figure_renderer import (
    Appearance,
    Colour,
    FigureDrawing,
    Keypoint,
    Part,
    PosedBody,
    Shape,
    View,
    capsule_polygons,
    pose_body,
    rotation_about,
    sample_appearance,
    sample_pose,
    shade,
)
from querypose.skeleton import COCO_SKELETON

MAX_PEOPLE = 8
MIN_SIDE, MAX_SIDE = 96, 4096
MIN_VISIBLE_PIXELS = 48
MIN_VISIBLE_SHARE = 0.08
"""A person who shows less than this share of the silhouette inside the picture is not annotated."""

_COUNT_ODDS = np.array([0.24, 0.22, 0.18, 0.12, 0.09, 0.06, 0.05, 0.04])
_SUPERSAMPLING = 2
_SUBPIXEL_BITS = 4
_OBJECT_LABEL = 255
_LABELS_PER_PERSON = 16


@dataclass(frozen=True)
class Person:
    """One figure of a scene."""

    body: PosedBody
    look: Appearance
    view: View


@dataclass(frozen=True)
class Scene:
    """Everything that decides the annotations of a picture.

    Attributes:
        seed: of the dataset.
        index: of the picture in it.
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


# ---- layout


def sample_scene(seed: int, index: int, width: int, height: int, max_people: int) -> Scene:
    """Draw the scene of picture ``index``: 1 to ``max_people`` figures and what hides them."""
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
        # Nothing covers the nearest figure above the pelvis: every picture shows somebody.
        foreground = _sample_foreground(rng, width, height, people[-1].view.origin[1])
    return Scene(seed, index, width, height, horizon, tuple(people), tuple(foreground))


@dataclass(frozen=True)
class _Camera:
    """What the figures of a scene share; angles in radians, lengths in metres."""

    light: np.ndarray
    elevation: float
    distance: float
    outline: float


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
        neighbour = others[rng.integers(len(others))].view.origin[0]
        return neighbour + rng.choice([-1.0, 1.0]) * rng.uniform(0.25, 0.6) * scale
    candidates = rng.uniform(0.0, 1.0, 5) * width
    taken = np.array([person.view.origin[0] for person in others])
    if not len(taken):
        return float(candidates[0])
    room = np.abs(candidates[:, None] - taken).min(axis=1)
    return float(candidates[room.argmax()])


def _sample_foreground(
    rng: np.random.Generator, width: int, height: int, clear_above: float
) -> list[Shape]:
    """A thin post, or a low wall or a bush below ``clear_above`` (pixels), to hide behind."""
    kind = rng.integers(3)
    colour = _any_colour(rng)
    if kind == 0:
        x, radius = rng.uniform(0.0, width), rng.uniform(0.008, 0.025) * width
        return _box(x - radius, -9.0, x + radius, height + 9.0, colour)
    if kind == 1:
        top, left = (
            max(rng.uniform(0.72, 0.9) * height, clear_above),
            rng.uniform(-0.1, 0.7) * width,
        )
        return _box(left, top, left + rng.uniform(0.2, 0.7) * width, height + 9.0, colour)
    x, leaf = rng.uniform(0.0, width), rng.uniform(0.04, 0.07) * min(width, height)
    spots = rng.uniform((-2.5, -1.2), (2.5, 1.5), (14, 2)) * leaf
    spots += (x, max(0.95 * height, clear_above + 2.2 * leaf))
    return [
        Shape(_disc(spot, leaf), shade(colour, gain), Part.OBJECT)
        for spot, gain in zip(spots, rng.uniform(0.6, 1.1, 14).tolist(), strict=True)
    ]


def _box(left: float, top: float, right: float, bottom: float, colour: Colour) -> list[Shape]:
    """A rectangle with a darker rim."""
    rim = 0.06 * min(right - left, bottom - top)
    return [
        Shape(_rectangle(left, top, right, bottom), shade(colour, 0.6), Part.OBJECT),
        Shape(_rectangle(left + rim, top + rim, right - rim, bottom - rim), colour),
    ]


def _rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def _disc(centre: np.ndarray, radius: float) -> np.ndarray:
    angles = np.arange(0.0, 2.0 * math.pi, math.pi / 8.0)
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.uniform(20.0, 240.0, 3).tolist()
    grey, share = (red + green + blue) / 3.0, rng.uniform(0.0, 0.8)
    return tuple(grey * share + channel * (1.0 - share) for channel in (red, green, blue))


# ---- annotation


def annotate(scene: Scene) -> list[dict[str, Any]]:
    """The visible people of a scene as Detectron2 annotations.

    Returns:
        One dictionary a person with ``bbox`` (XYXY pixels, tight around the visible pixels),
        ``bbox_mode``, ``category_id`` 0, ``iscrowd`` 0, ``segmentation`` (compressed RLE of the
        visible pixels) and ``keypoints``: 17 times x, y, v in COCO's order. x and y are continuous
        (the first pixel's centre is 0.5, 0.5); v is 2 visible, 1 hidden by the person, somebody
        else or an object, 0 outside the picture (then x = y = 0.5, which is COCO's 0, 0).
    """
    labels, drawings, full_areas = label_people(scene)
    owners = labels // _LABELS_PER_PERSON
    annotations = []
    for slot, (drawing, full_area) in enumerate(zip(drawings, full_areas, strict=True), start=1):
        visible = (owners == slot).view(np.uint8)
        area = cv2.countNonZero(visible)
        if area < max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * full_area):
            continue
        left, top, width, height = cv2.boundingRect(visible)
        encoded = mask_util.encode(np.asfortranarray(visible))
        annotations.append(
            {
                "bbox": [float(left), float(top), float(left + width), float(top + height)],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "segmentation": {
                    "size": encoded["size"],
                    "counts": encoded["counts"].decode("ascii"),
                },
                "keypoints": _flat_keypoints(drawing.keypoints, labels, slot),
            }
        )
    return annotations


def label_people(scene: Scene) -> tuple[np.ndarray, list[FigureDrawing], list[int]]:
    """What every pixel shows.

    Returns:
        labels: (H, W) uint8; 16 * (1 + person) + part, 255 for objects, 0 for the backdrop.
        drawings: the figures, without paint.
        full_areas: pixels each silhouette covers before nearer things hide it.
    """
    labels = np.zeros((scene.height, scene.width), dtype=np.uint8)
    drawings, full_areas = [], []
    for slot, person in enumerate(scene.people, start=1):
        drawing = FigureDrawing(person.body, person.look, person.view, painted=False)
        _label_shapes(labels, drawing.shapes, slot)
        drawings.append(drawing)
        first = slot * _LABELS_PER_PERSON
        silhouette = cv2.inRange(labels, first, first + _LABELS_PER_PERSON - 1)
        full_areas.append(cv2.countNonZero(silhouette))
    _label_shapes(labels, list(scene.foreground), 0)
    return labels, drawings, full_areas


def _label_shapes(labels: np.ndarray, shapes: list[Shape], slot: int) -> None:
    silhouettes = [shape for shape in shapes if shape.part != Part.DETAIL]
    for shape, corners in zip(silhouettes, _fixed_point(silhouettes, 1), strict=True):
        of_object = shape.part == Part.OBJECT
        label = _OBJECT_LABEL if of_object else slot * _LABELS_PER_PERSON + shape.part
        cv2.fillConvexPoly(labels, corners, label, cv2.LINE_8, _SUBPIXEL_BITS)


def _fixed_point(shapes: list[Shape], zoom: int) -> Iterator[np.ndarray]:
    """OpenCV's corners of each shape: fixed-point, with pixel centres at whole numbers."""
    if not shapes:
        return
    corners = np.concatenate([shape.polygon for shape in shapes])
    fixed = np.rint((zoom * corners - 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    first = 0
    for shape in shapes:
        yield fixed[first : first + len(shape.polygon)]
        first += len(shape.polygon)


def _flat_keypoints(keypoints: dict[str, Keypoint], labels: np.ndarray, slot: int) -> list[float]:
    height, width = labels.shape
    flat: list[float] = []
    for name in COCO_SKELETON.keypoints:
        keypoint = keypoints[name]
        if not (0 <= keypoint.x < width and 0 <= keypoint.y < height):
            flat += (0.5, 0.5, 0)
            continue
        owner, part = divmod(int(labels[int(keypoint.y), int(keypoint.x)]), _LABELS_PER_PERSON)
        visible = owner == slot and part in keypoint.shown_by
        flat += (keypoint.x, keypoint.y, 2 if visible else 1)
    return flat


# ---- painting


def render(scene: Scene) -> np.ndarray:
    """Paint a scene.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    rng = np.random.default_rng([scene.seed, scene.index, 1])
    size = (scene.width, scene.height)
    backdrop = _paint_backdrop(rng, scene)
    zoomed = (_SUPERSAMPLING * scene.width, _SUPERSAMPLING * scene.height)
    canvas = cv2.resize(backdrop, zoomed, interpolation=cv2.INTER_NEAREST)
    for person in scene.people:
        drawing = FigureDrawing(person.body, person.look, person.view)
        _fill_shapes(canvas, drawing.shapes, _SUPERSAMPLING)
    _fill_shapes(canvas, list(scene.foreground), _SUPERSAMPLING)
    picture = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)
    return _photograph(rng, picture)


def _fill_shapes(canvas: np.ndarray, shapes: list[Shape], zoom: int) -> None:
    for shape, corners in zip(shapes, _fixed_point(shapes, zoom), strict=True):
        cv2.fillConvexPoly(canvas, corners, shape.colour, cv2.LINE_8, _SUBPIXEL_BITS)


def _paint_backdrop(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    width, height = scene.width, scene.height
    painters = (_outdoors, _indoors, _abstract)
    canvas, shapes = painters[rng.choice(3, p=[0.4, 0.35, 0.25])](rng, width, height, scene.horizon)
    for _ in range(rng.integers(0, 10)):
        shapes += _clutter(rng, width, height)
    _fill_shapes(canvas, shapes, 1)
    canvas = _mottle(rng, canvas)
    for person in scene.people:
        _cast_shadow(canvas, person)
    return canvas


def _mottle(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Cloudy and grainy variation of colour."""
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
    feet = np.array(
        [points[f"{side}_{end}"] for side in ("left", "right") for end in ("heel", "toe")]
    )
    feet = view.origin + (feet @ view.rotation.T)[:, :2] * (view.scale, -view.scale)
    centre, reach = feet.mean(axis=0), np.ptp(feet[:, 0]) / 2 + 0.12 * view.scale
    centre[1] = feet[:, 1].max() + 0.02 * view.scale
    margin = np.array((reach + 2.0, 0.3 * reach + 2.0))
    left, top = np.maximum(centre - margin, 0).astype(int)
    right, bottom = np.maximum(centre + margin, 0).astype(int)
    patch = canvas[top:bottom, left:right]
    if patch.size:
        dark = Shape(
            _disc(np.zeros(2), 1.0) * (reach, 0.3 * reach) + centre - (left, top), (0, 0, 0)
        )
        shadowed = patch.copy()
        _fill_shapes(shadowed, [dark], 1)
        patch[:] = cv2.addWeighted(patch, 0.6, shadowed, 0.4, 0.0)


def _gradient(colours: list[Colour], width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8 that runs through the colours from top to bottom."""
    column = np.array(colours).clip(0, 255).astype(np.uint8)[:, None]
    return cv2.resize(column, (width, height), interpolation=cv2.INTER_LINEAR)


def _outdoors(
    rng: np.random.Generator, width: int, height: int, horizon: float
) -> tuple[np.ndarray, list[Shape]]:
    """Sky, hills or houses or trees, and the ground."""
    sky, ground = (
        rng.uniform((90, 130, 170), (190, 220, 255)),
        rng.uniform((70, 80, 50), (190, 180, 150)),
    )
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
            hill = _disc(np.zeros(2), 1.0)[8:] * (rng.uniform(1.0, 3.0) * tall, 0.5 * tall)
            shapes.append(Shape(hill + np.array((x, horizon + 1)), _tinted(rng, (90, 130, 80))))
    return canvas, shapes


def _tinted(rng: np.random.Generator, colour: Colour) -> Colour:
    red, green, blue = np.clip(np.array(colour) * rng.uniform(0.6, 1.4, 3), 0, 255).tolist()
    return (red, green, blue)


def _house(rng: np.random.Generator, x: float, tall: float, floor: float) -> list[Shape]:
    colour, half = _any_colour(rng), rng.uniform(0.3, 0.7) * tall
    shapes = _box(x - half, floor - tall, x + half, floor, colour)
    pane = 0.16 * half
    return shapes + [
        Shape(_rectangle(px - pane, py - pane, px + pane, py + 1.4 * pane), shade(colour, 0.45))
        for px in (x - 0.55 * half, x, x + 0.55 * half)
        for py in np.arange(floor - tall + 3 * pane, floor - 2 * pane, 4.5 * pane)[:6]
    ]


def _tree(rng: np.random.Generator, x: float, tall: float, floor: float) -> list[Shape]:
    trunk, leaves = _tinted(rng, (100, 70, 45)), _tinted(rng, (70, 125, 55))
    thick = 0.05 * tall
    spots = rng.uniform(-1.0, 1.0, (9, 2)) * (0.26 * tall, 0.2 * tall) + (x, floor - 0.8 * tall)
    return [
        Shape(_rectangle(x - thick, floor - 0.75 * tall, x + thick, floor), trunk),
        *(
            Shape(_disc(spot, 0.2 * tall), shade(leaves, gain))
            for spot, gain in zip(spots, rng.uniform(0.75, 1.15, 9).tolist(), strict=True)
        ),
    ]


def _indoors(
    rng: np.random.Generator, width: int, height: int, horizon: float
) -> tuple[np.ndarray, list[Shape]]:
    """A wall with pictures, windows or shelves, and a floor."""
    wall, floor = np.array(_any_colour(rng)), np.array(_tinted(rng, (150, 115, 80)))
    edge = int(min(height, horizon + 0.25 * height))
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:edge] = _gradient([wall, wall * rng.uniform(0.75, 1.15)], width, edge)
    canvas[edge:] = _gradient([floor, floor * rng.uniform(0.7, 1.2)], width, height - edge)
    skirting = Shape(
        _rectangle(-5, edge - 0.02 * height, width + 5, edge), tuple((wall * 0.6).tolist())
    )
    seams = np.linspace(-1.0, 2.0, rng.integers(2, 14)) * width
    tops = np.stack([seams, np.full_like(seams, edge)], axis=1)
    feet = np.stack([2.5 * seams - 0.75 * width, np.full_like(seams, height)], axis=1)
    shapes = [skirting, *_strokes(tops, feet, 0.6, tuple((floor * 0.7).tolist()))]
    for _ in range(rng.integers(1, 6)):
        (x, y), (half_x, half_y) = rng.uniform(0, (width, edge)), rng.uniform(0.03, 0.16, 2) * width
        shapes += _box(x - half_x, y - half_y, x + half_x, y + half_y, _any_colour(rng))
        inner = _rectangle(x - 0.7 * half_x, y - 0.7 * half_y, x + 0.7 * half_x, y + 0.7 * half_y)
        shapes.append(Shape(inner, _any_colour(rng)))
    return canvas, shapes


def _abstract(
    rng: np.random.Generator, width: int, height: int, horizon: float
) -> tuple[np.ndarray, list[Shape]]:
    """A gradient with large random shapes."""
    canvas = _gradient([np.array(_any_colour(rng)) for _ in range(3)], width, height)
    shapes = []
    for centre in rng.uniform(0, (width, height), (rng.integers(0, 10), 2)):
        corners = centre + rng.normal(0.0, 0.18 * width, (5, 2))
        hull = cv2.convexHull(corners.astype(np.float32))[:, 0].astype(float)
        shapes.append(Shape(hull, _any_colour(rng)))
    return canvas, shapes


def _strokes(starts: np.ndarray, ends: np.ndarray, radius: float, colour: Colour) -> list[Shape]:
    """(N, 2) starts and ends -> N lines."""
    radii = np.full(len(starts), radius)
    return [Shape(polygon, colour) for polygon in capsule_polygons(starts, radii, ends, radii)]


def _clutter(rng: np.random.Generator, width: int, height: int) -> list[Shape]:
    """A ball, a crate, a fan of lines, or two capsules that look like a limb."""
    place, size = rng.uniform(0, (width, height)), rng.uniform(0.02, 0.12) * min(width, height)
    colour, kind = _any_colour(rng), rng.integers(4)
    if kind == 0:
        lit = place - 0.2 * size
        return [
            Shape(_disc(place, size), shade(colour, 0.7)),
            Shape(_disc(lit, 0.7 * size), colour),
        ]
    if kind == 1:
        x, y = place
        return _box(x - size, y - size, x + size, y + rng.uniform(0.2, 1.5) * size, colour)
    if kind == 2:
        ends = place + rng.normal(0.0, 4 * size, (6, 2))
        return _strokes(np.tile(place, (6, 1)), ends, rng.uniform(0.4, 2.0), colour)
    bend, end = place + rng.normal(0.0, 1.8 * size, 2), place + rng.normal(0.0, 2.5 * size, 2)
    starts, stops = np.stack([place, bend]), np.stack([bend, end])
    radii = 0.3 * size * np.array([1.0, 0.8, 0.55])
    polygons = [
        *capsule_polygons(starts, 1.15 * radii[:2], stops, 1.15 * radii[1:]),
        *capsule_polygons(starts, radii[:2], stops, radii[1:]),
    ]
    tones = [shade(colour, 0.5)] * 2 + [colour] * 2
    return [Shape(polygon, tone) for polygon, tone in zip(polygons, tones, strict=True)]


def _photograph(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Uneven light, exposure, white balance, blur and noise of a camera."""
    exposure = rng.uniform(0.78, 1.22) * rng.uniform(0.94, 1.06, 3)
    cells = (rng.uniform(92.0, 140.0, (3, 3, 1)) * exposure).astype(np.uint8)
    light = cv2.resize(cells, (24, 24), interpolation=cv2.INTER_CUBIC)
    light = cv2.resize(light, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    # Spent arrays take the results: fresh memory costs more than the arithmetic.
    picture = cv2.multiply(picture, light, dst=light, scale=1 / 128)
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.3))
    grain = rng.integers(0, 256, picture.shape, dtype=np.uint8)
    strength = rng.uniform(0.0, 0.09)
    veil = rng.uniform(-12.0, 12.0)
    return cv2.addWeighted(picture, 1.0, grain, strength, veil - 128.0 * strength, dst=grain)


# ---- the dataset


@dataclass(frozen=True)
class SyntheticPeople:
    """A dataset of generated pictures; calling it gives Detectron2's list of records.

    Every call builds new records, so callers may change them (Detectron2's COCO conversion does).

    Attributes:
        num_images: pictures, at least 1.
        seed: datasets with different seeds share no picture; at least 0.
        image_size: width and height in pixels.
        max_people: most people in a picture, 1 to 8.

    Raises:
        ValueError: one of them is out of range.
    """

    num_images: int
    seed: int
    image_size: tuple[int, int] = (384, 384)
    max_people: int = MAX_PEOPLE

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {self.num_images}.")
        _check_picture(self.seed, *self.image_size, self.max_people)

    def __len__(self) -> int:
        """Number of pictures."""
        return self.num_images

    def __call__(self) -> list[dict[str, Any]]:
        """All records; see :meth:`record`."""
        return [self.record(index) for index in range(self.num_images)]

    def path(self, index: int) -> str:
        """The path under which Detectron2's ``PathManager`` opens picture ``index``."""
        width, height = self.image_size
        return f"{PREFIX}people/{self.seed}/{width}x{height}/{self.max_people}/{index}.png"

    def scene(self, index: int) -> Scene:
        """The scene of picture ``index``.

        Raises:
            IndexError: there is no such picture.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(f"Picture {index} is outside 0..{self.num_images - 1}.")
        return sample_scene(self.seed, index, *self.image_size, self.max_people)

    def record(self, index: int) -> dict[str, Any]:
        """Picture ``index`` as Detectron2's dataset dictionary; annotations as :func:`annotate`."""
        width, height = self.image_size
        return {
            "file_name": self.path(index),
            "image_id": index,
            "height": height,
            "width": width,
            "annotations": annotate(self.scene(index)),
        }


def _check_picture(seed: int, width: int, height: int, max_people: int) -> None:
    if seed < 0:
        raise ValueError(f"The seed of synthetic people must be at least 0, got {seed}.")
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ValueError(
            f"Pictures of synthetic people are {MIN_SIDE} to {MAX_SIDE} pixels wide and high, "
            f"got {width}x{height}."
        )
    if not 1 <= max_people <= MAX_PEOPLE:
        raise ValueError(f"max_people must be 1 to {MAX_PEOPLE}, got {max_people}.")


PREFIX = "synthetic://"
_PATH = re.compile(r"people/(\d+)/(\d+)x(\d+)/(\d+)/(\d+)\.png")


def _png_options() -> tuple[int, ...]:
    """Neither compression nor filters: either would cost more time than rendering."""
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        unfiltered = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
        return (cv2.IMWRITE_PNG_COMPRESSION, 0, *unfiltered)
    return (cv2.IMWRITE_PNG_COMPRESSION, 0)  # OpenCV before 4.12


class SyntheticPathHandler(PathHandler):
    """Renders a picture of synthetic people when its path is opened for reading."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _open(self, path: str, mode: str = "rb", buffering: int = -1, **kwargs: Any) -> io.BytesIO:
        self._check_kwargs(kwargs)
        if mode != "rb":
            raise ValueError(f"{path} is rendered when read: open it with mode 'rb', not {mode!r}.")
        picture = render(_parse_path(path))
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, dst=picture)
        encoded = cv2.imencode(".png", bgr, _png_options())[1]
        return io.BytesIO(encoded.tobytes())

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        return _PATH.fullmatch(path.removeprefix(PREFIX)) is not None

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path, **kwargs)


def _parse_path(path: str) -> Scene:
    match = _PATH.fullmatch(path.removeprefix(PREFIX))
    if match is None:
        raise ValueError(
            f"{path!r} names no synthetic picture; expected "
            f"{PREFIX}people/SEED/WIDTHxHEIGHT/MAX_PEOPLE/INDEX.png."
        )
    seed, width, height, max_people, index = map(int, match.groups())
    _check_picture(seed, width, height, max_people)
    return sample_scene(seed, index, width, height, max_people)


def register_synthetic_people(
    name: str,
    *,
    num_images: int,
    seed: int,
    image_size: tuple[int, int] = (384, 384),
    max_people: int = MAX_PEOPLE,
) -> None:
    """Register a dataset of generated people with Detectron2's catalogs.

    Args:
        name: what configs call it.
        num_images: pictures.
        seed: datasets with different seeds share no picture.
        image_size: width and height in pixels.
        max_people: most people in a picture, 1 to 8.

    Raises:
        ValueError: an argument is out of range, or the name is taken.
    """
    if name in DatasetCatalog.list():
        raise ValueError(f"A dataset named {name!r} is registered already; choose another name.")
    dataset = SyntheticPeople(num_images, seed, image_size, max_people)
    DatasetCatalog.register(name, dataset)
    MetadataCatalog.get(name).set(
        evaluator_type="coco", thing_classes=["person"], **COCO_SKELETON.metadata()
    )


@functools.cache
def register_builtin_synthetic_people() -> None:
    """Register the path handler and the ``synthetic_people_*`` datasets, once in a process."""
    PathManager.register_handler(SyntheticPathHandler())
    register_synthetic_people("synthetic_people_train", num_images=4000, seed=1)
    register_synthetic_people("synthetic_people_val", num_images=500, seed=2)
    register_synthetic_people(
        "synthetic_people_tiny", num_images=32, seed=3, image_size=(256, 256), max_people=3
    )


register_builtin_synthetic_people()
