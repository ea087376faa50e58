"""A mosaic of many images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

_GAP = 4
# A row of few images stays shorter than the sheet rather than being enlarged further.
_LARGEST_ZOOM = 1.75
# A row of more images is divided rather than made smaller.
_SMALLEST_ZOOM = 5 / 6
# A wider tile would shrink its whole row, or fill the memory.
_MAX_ASPECT_RATIO = 3


def sheet_tile(image: np.ndarray, row_height: int) -> np.ndarray:
    """Scales an RGB image (H, W, 3) to the height of a row.

    An image more than three times as wide as high gets white margins above and below.
    """
    height, width = image.shape[:2]
    zoom = min(row_height / height, _MAX_ASPECT_RATIO * row_height / width)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    tile = np.full((row_height, size[0], 3), 255, np.uint8)
    top = (row_height - size[1]) // 2
    tile[top : top + size[1]] = scaled
    return tile


def pose_sheet(
    images: Sequence[np.ndarray],
    *,
    width: int = 1600,
    row_height: int = 240,
    longest_side: int = 65_500,
) -> np.ndarray:
    """Arranges images in rows of equal width, keeping their order.

    Args:
        images: (H, W, 3) uint8 RGB, of any sizes.
        width: of the sheet, in pixels.
        row_height: approximate, in pixels; rows are scaled to fit the width, to no less than five
            sixths of it unless a single image is wider than the sheet.
        longest_side: that the sheet may have, by default in a JPEG file. A sheet that would be
            higher gets wider; if that does not suffice, its images get smaller.

    Returns:
        (H, W, 3) uint8 RGB on white; W is ``width`` unless ``longest_side`` asks for another.

    Raises:
        ValueError: there are no images, or too many for the longest side.
    """
    if not len(images):
        raise ValueError("A sheet needs at least one image.")
    tiles = [sheet_tile(image, row_height) for image in images]
    width = min(width, longest_side)
    split = _split_into_rows(tiles, width)
    while sum(_row_height(row, width) + _GAP for row in split) > longest_side + _GAP:
        if width < longest_side:
            width = min(2 * width, longest_side)
        elif max(len(tile) for tile in tiles) == 1:
            raise ValueError(f"{len(images)} images do not fit a sheet of {longest_side} pixels.")
        else:
            tiles = [sheet_tile(tile, max(1, tile.shape[0] // 2)) for tile in tiles]
        split = _split_into_rows(tiles, width)
    rows = [_join_row(row, width) for row in split]
    gap = np.full((_GAP, width, 3), 255, np.uint8)
    stacked = [piece for row in rows for piece in (row, gap)][:-1]
    return np.concatenate(stacked)


def _split_into_rows(tiles: Sequence[np.ndarray], width: int) -> list[list[np.ndarray]]:
    """Groups tiles into as few rows of about equal width as keep their height."""
    widths = np.array([tile.shape[1] + _GAP for tile in tiles])
    right_edges = widths.cumsum()
    centers = (right_edges - widths / 2) / right_edges[-1]
    longest = width / _SMALLEST_ZOOM
    for num_rows in range(math.ceil(right_edges[-1] / longest), len(tiles) + 1):
        row_of_tile = (centers * num_rows).astype(int)
        if np.bincount(row_of_tile, widths).max() <= longest:
            break
    else:
        row_of_tile = np.arange(len(tiles))
    return [
        [tile for tile, own in zip(tiles, row_of_tile, strict=True) if own == row]
        for row in np.unique(row_of_tile)
    ]


def _zoom(tiles: Sequence[np.ndarray], width: int) -> float:
    gaps = _GAP * (len(tiles) - 1)
    zoom = (width - gaps) / sum(tile.shape[1] for tile in tiles)
    return 1.0 if zoom > _LARGEST_ZOOM else zoom


def _row_height(tiles: Sequence[np.ndarray], width: int) -> int:
    return max(1, round(tiles[0].shape[0] * _zoom(tiles, width)))


def _join_row(tiles: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Puts tiles side by side, scaled together to the width or padded with white up to it."""
    zoom, height = _zoom(tiles, width), _row_height(tiles, width)
    row = np.full((height, width, 3), 255, np.uint8)
    left = 0.0
    for tile in tiles:
        right = left + tile.shape[1] * zoom
        start, end = round(left), max(round(left) + 1, min(round(right), width))
        row[:, start:end] = cv2.resize(tile, (end - start, height), interpolation=cv2.INTER_AREA)
        left = right + _GAP
    return row
