"""A mosaic of many images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

_GAP = 4
# A row of few images stays shorter than the sheet rather than being enlarged further.
_LARGEST_ZOOM = 1.5
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
    images: Sequence[np.ndarray], *, width: int = 1600, row_height: int = 240
) -> np.ndarray:
    """Arranges images in rows of equal width, keeping their order.

    Args:
        images: (H, W, 3) uint8 RGB, of any sizes.
        width: of the sheet, in pixels.
        row_height: approximate, in pixels; rows are scaled to fit the width.

    Returns:
        (H, width, 3) uint8 RGB on white.

    Raises:
        ValueError: there are no images.
    """
    if not len(images):
        raise ValueError("A sheet needs at least one image.")
    tiles = [sheet_tile(image, row_height) for image in images]
    rows = [_join_row(row, width) for row in _split_into_rows(tiles, width)]
    gap = np.full((_GAP, width, 3), 255, np.uint8)
    stacked = [piece for row in rows for piece in (row, gap)][:-1]
    return np.concatenate(stacked)


def _split_into_rows(tiles: Sequence[np.ndarray], width: int) -> Iterator[list[np.ndarray]]:
    """Groups tiles into rows of about equal width, as close as possible to that of the sheet."""
    right_edges = np.cumsum([tile.shape[1] + _GAP for tile in tiles])
    centers = right_edges - [tile.shape[1] / 2 for tile in tiles]
    num_rows = max(1, round(right_edges[-1] / width))
    row_of_tile = (centers / right_edges[-1] * num_rows).astype(int)
    for row in np.unique(row_of_tile):
        yield [tile for tile, own in zip(tiles, row_of_tile, strict=True) if own == row]


def _join_row(tiles: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Puts tiles side by side, scaled together to the width or padded with white up to it."""
    gaps = _GAP * (len(tiles) - 1)
    total = sum(tile.shape[1] for tile in tiles)
    zoom = (width - gaps) / total
    if zoom > _LARGEST_ZOOM:
        zoom = 1.0
    height = max(1, round(tiles[0].shape[0] * zoom))
    row = np.full((height, width, 3), 255, np.uint8)
    left = 0.0
    for tile in tiles:
        right = left + tile.shape[1] * zoom
        start, end = round(left), max(round(left) + 1, min(round(right), width))
        row[:, start:end] = cv2.resize(tile, (end - start, height), interpolation=cv2.INTER_AREA)
        left = right + _GAP
    return row
