"""Part attention maps (SPEGM) over the crops of persons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from querypose.inference.prediction import PosePrediction
from querypose.side_names import split_side
from querypose.visualization.canvas import person_color
from querypose.visualization.tiles import GAP, overlay, titled

_GRAY = (128, 128, 128)
# Of tiles with the given size.
_MAX_COLUMNS = 9
# Width by height of a crop; beyond, it shows what is beside the person, too.
_NARROWEST, _WIDEST = 0.5, 3.0


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
        tile_size: (height, width) in pixels; a crop has about this area and the shape of the
            person's box within the image.

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
    rows = [_row(image_rgb, prediction, person, tile_size) for person in people]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([_widened(row, width) for row in rows])


def _row(
    image: np.ndarray, prediction: PosePrediction, person: int, tile_size: tuple[int, int]
) -> np.ndarray:
    """The tiles of one person."""
    box = prediction.attention.boxes_xyxy[person].double().numpy()
    shown = _shown_box(box, image.shape[:2])
    size = _tile_size(shown, tile_size[0] * tile_size[1])
    whole = np.array([0.0, 0.0, *image.shape[1::-1]])
    crop = _resample(image, whole, shown, size, borderValue=_GRAY)
    tiles = [titled(crop, f"person {person + 1}", person_color(person))]
    maps = prediction.attention.maps[person].numpy()
    for part, part_map in zip(prediction.skeleton.parts, maps, strict=True):
        values = _resample(part_map, box, shown, size, borderMode=cv2.BORDER_REPLICATE)
        tiles.append(titled(overlay(crop, values), part_name(part)))
    return _grid(tiles, _MAX_COLUMNS * (tile_size[1] + GAP))


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


def _shown_box(box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The part of an xyxy box that lies in an image (height, width), widened if it is narrow."""
    height, width = image_size
    inside = box.clip(0, [width, height, width, height])
    x0, y0, x1, y1 = inside if (inside[2:] - inside[:2] >= 1).all() else box
    box_width, box_height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    missing_width = max(0.0, _NARROWEST * box_height - box_width) / 2
    missing_height = max(0.0, box_width / _WIDEST - box_height) / 2
    return np.array(
        [x0 - missing_width, y0 - missing_height, x1 + missing_width, y1 + missing_height]
    )


def _tile_size(box: np.ndarray, area: int) -> tuple[int, int]:
    """(width, height) of a tile with the shape of a box and about this area."""
    sides = box[2:] - box[:2]
    width, height = (sides * np.sqrt(area / sides.prod())).round().astype(int).tolist()
    return width, height


def _resample(
    values: np.ndarray, covered: np.ndarray, shown: np.ndarray, size: tuple[int, int], **border: Any
) -> np.ndarray:
    """Values that cover one xyxy box, read over another box at a size (width, height)."""
    height, width = values.shape[:2]
    scale = (width, height) / (covered[2:] - covered[:2])
    step = scale * (shown[2:] - shown[:2]) / size
    # Maps indices of the result to those of the values; index = continuous coordinate - 0.5.
    offset = scale * (shown[:2] - covered[:2]) + 0.5 * step - 0.5
    inverse = np.column_stack([np.diag(step), offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, inverse, size, flags=flags, **border)


def _grid(tiles: Sequence[np.ndarray], max_width: int) -> np.ndarray:
    """Tiles of one size in as few rows as possible, of equal length, padded with white tiles."""
    num_rows = -(-len(tiles) // max(1, max_width // tiles[0].shape[1]))
    columns = -(-len(tiles) // num_rows)
    blanks = [np.full_like(tiles[0], 255)] * (num_rows * columns - len(tiles))
    padded = [*tiles, *blanks]
    rows = [padded[start : start + columns] for start in range(0, len(padded), columns)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _widened(row: np.ndarray, width: int) -> np.ndarray:
    """A row with white at its right up to a width."""
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
