"""Part attention maps (SPEGM) over the crops of persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from querypose.inference.prediction import PosePrediction
from querypose.side_names import split_side
from querypose.visualization.canvas import person_color
from querypose.visualization.labels import draw_text

_GRAY = (128, 128, 128)
_PART_TITLE_COLOR = (32, 32, 32)
_OPACITY = 0.75
_GAP = 4
_LABEL_HEIGHT = 24
_MAX_COLUMNS = 9


def draw_attention(
    image_rgb: np.ndarray,
    prediction: PosePrediction,
    people: Sequence[int] | None = None,
    *,
    tile_size: tuple[int, int] = (192, 144),
) -> np.ndarray:
    """Draws the part attention maps of one stage over crops of people (supplement, Figure 1).

    Args:
        image_rgb: (H, W, 3) uint8.
        prediction: of this image, made with ``return_attention=True``.
        people: indices into the prediction; None draws all.
        tile_size: (height, width) of a crop in pixels.

    Returns:
        (H', W', 3) uint8 RGB. Each person has a row, or several if there are many parts: the crop,
        then the crop under the map of each part. Every map is scaled by its own maximum.

    Raises:
        ValueError: the prediction has no attention, or there is nobody to draw.
    """
    attention = prediction.attention
    if attention is None:
        raise ValueError("Predict with return_attention=True to draw attention.")
    people = range(len(prediction)) if people is None else people
    if not len(people):
        raise ValueError("There is nobody to draw the attention of.")
    part_names = [part_name(part) for part in prediction.skeleton.parts]
    rows = []
    for person in people:
        box, score = attention.boxes_xyxy[person].tolist(), prediction.scores[person]
        crop, window = _crop(image_rgb, box, tile_size)
        tiles = [_titled(crop, f"person {person + 1}: {score:.0%}", person_color(person))]
        for name, part_map in zip(part_names, attention.maps[person].numpy(), strict=True):
            tiles.append(_titled(_overlay(crop, part_map, window), name, _PART_TITLE_COLOR))
        rows.append(_grid(tiles))
    return np.concatenate(rows, axis=0)


def part_name(keypoints: Sequence[str]) -> str:
    """A short name for a part: "shoulders", "left elbow + wrist", "nose + eyes + ears".

    A left and a right keypoint become one plural; a side that all keypoints share is named once.
    """
    sides_of: dict[str, set[str]] = defaultdict(set)
    for side, rest in map(split_side, keypoints):
        sides_of[rest].add(side)
    shared = set().union(*sides_of.values())
    if len(shared) == 1:
        return f"{shared.pop()} {' + '.join(sides_of)}".strip()
    return " + ".join(
        f"{rest}s" if {"left", "right"} <= sides else f"{min(sides)} {rest}".strip()
        for rest, sides in sides_of.items()
    )


def _crop(
    image: np.ndarray, box: Sequence[float], tile_size: tuple[int, int]
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """The image within a box, centered in a tile, and its window (rows, columns) in the tile.

    The tile is gray outside the image and outside the window.
    """
    x0, y0, x1, y1 = box
    tile_height, tile_width = tile_size
    box_width, box_height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    zoom = min(tile_width / box_width, tile_height / box_height)
    width, height = max(1, round(box_width * zoom)), max(1, round(box_height * zoom))
    step_x, step_y = box_width / width, box_height / height
    # Maps pixel indices of the window to those of the image; index = continuous coordinate - 0.5.
    inverse = np.array([[step_x, 0, x0 + 0.5 * step_x - 0.5], [0, step_y, y0 + 0.5 * step_y - 0.5]])
    inside = cv2.warpAffine(
        image,
        inverse,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=_GRAY,
    )
    tile = np.full((tile_height, tile_width, 3), _GRAY, np.uint8)
    top, left = (tile_height - height) // 2, (tile_width - width) // 2
    window = slice(top, top + height), slice(left, left + width)
    tile[window] = inside
    return tile, window


def _overlay(crop: np.ndarray, part_map: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Blends a map into the window of a crop; higher values are more opaque."""
    inside = crop[window]
    values = cv2.resize(part_map, inside.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    strength = (values / max(values.max(), 1e-12)).clip(0, 1)
    heat = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    opacity = _OPACITY * np.sqrt(strength)[..., None]
    blended = crop.copy()
    blended[window] = (inside * (1 - opacity) + heat * opacity).round().astype(np.uint8)
    return blended


def _titled(tile: np.ndarray, title: str, color: tuple[int, int, int]) -> np.ndarray:
    """A tile with a title above it and a gap to its right and below it."""
    height, width = tile.shape[:2]
    framed = np.full((height + _LABEL_HEIGHT + _GAP, width + _GAP, 3), 255, np.uint8)
    draw_text(framed[:, :width], title, (0, 0), 0.4, color)
    framed[_LABEL_HEIGHT : _LABEL_HEIGHT + height, :width] = tile
    return framed


def _grid(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles of one size in as few rows as possible, of equal length, padded with white tiles."""
    num_rows = -(-len(tiles) // _MAX_COLUMNS)
    columns = -(-len(tiles) // num_rows)
    blanks = [np.full_like(tiles[0], 255)] * (num_rows * columns - len(tiles))
    padded = [*tiles, *blanks]
    rows = [padded[start : start + columns] for start in range(0, len(padded), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
