"""The sums and products of Winograd's F(4x4, 3x3), on maps stored channels-last.

After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): a 4x4 tile of
the output costs 36 multiplications per pair of channels instead of 144. Input patches of 6x6
overlap by two. Sums turn each into 36 places, one matrix product per place mixes the channels, and
sums turn those into the tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 4
PATCH = TILE + 2
# Of polynomials at the points 0, 1, -1, 2, -2 and infinity.
_KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
# The place of the point 1 in both directions: alone it gives a constant tile.
_CONSTANT = (1, 1)


def kernel_to_places(kernel: Tensor) -> Tensor:
    """Transforms (out channels, in channels, 3, 3) to (36, in channels, out channels)."""
    matrix = kernel.new_tensor(_KERNEL_TRANSFORM)
    out_channels, in_channels = kernel.shape[:2]
    places = kernel.new_empty(PATCH, PATCH, in_channels, out_channels)
    # Row by row: a temporary copy of all places would be large.
    for row, weights in zip(places, matrix, strict=True):
        kernel_row = torch.einsum("a,ocab->bco", weights, kernel)
        row.copy_(torch.einsum("jb,bco->jco", matrix, kernel_row))
    return places.flatten(0, 1)


def places_to_kernel(places: Tensor) -> Tensor:
    """The inverse of :func:`kernel_to_places`, up to float rounding."""
    matrix = torch.tensor(_KERNEL_TRANSFORM, dtype=torch.float64, device=places.device)
    inverse = torch.linalg.pinv(matrix).to(places)
    return torch.einsum("ai,bj,ijco->ocab", inverse, inverse, places.unflatten(0, (PATCH, PATCH)))


class Block(NamedTuple):
    """Tiles that are convolved together.

    Attributes:
        maps: of the batch.
        rows: of tiles.
    """

    maps: slice
    rows: slice


def split_into_blocks(
    num_maps: int, tile_rows: int, tile_columns: int, max_tiles: int
) -> Iterator[Block]:
    """Splits all tiles evenly into blocks of at most ``max_tiles``, but at least one row."""
    per_map = tile_rows * tile_columns
    if per_map <= max_tiles:
        for maps in _split(num_maps, max_tiles // per_map):
            yield Block(maps, slice(0, tile_rows))
        return
    for index in range(num_maps):
        for rows in _split(tile_rows, max(max_tiles // tile_columns, 1)):
            yield Block(slice(index, index + 1), rows)


def _split(count: int, largest: int) -> Iterator[slice]:
    """Consecutive slices of nearly equal length."""
    parts = -(-count // largest)
    for part in range(parts):
        yield slice(part * count // parts, (part + 1) * count // parts)


def convolve_block(
    pixels: Tensor, places: Tensor, bias: Tensor | None, output: Tensor, block: Block, *, relu: bool
) -> None:
    """Convolves the tiles of one block.

    Args:
        pixels: (N, H, W, in channels).
        places: from :func:`kernel_to_places`.
        bias: added, (out channels,).
        output: (N, H, W, out channels), where the tiles are written.
        block: which tiles.
        relu: apply ReLU.
    """
    sums = _patch_sums(_padded(pixels, block))
    grid = sums.shape[:5]
    products = torch.bmm(sums.flatten(0, 1).flatten(1, 3), places).unflatten(1, grid[2:])
    products = products.unflatten(0, grid[:2])
    if bias is not None:
        products[_CONSTANT].add_(bias)
    target = output[block.maps, TILE * block.rows.start : TILE * block.rows.stop]
    num_maps, height, width, channels = target.shape
    size = (TILE * grid[3], TILE * grid[4])
    # At the lower and the right edge tiles may be larger than the map.
    fits = size == (height, width)
    tiles = target if fits else target.new_empty(num_maps, *size, channels)
    _tile_sums(products, tiles)
    if relu:
        torch.clamp_min(tiles[:, :height, :width], 0, out=target)
    elif not fits:
        target.copy_(tiles[:, :height, :width])


def _padded(pixels: Tensor, block: Block) -> Tensor:
    """The pixels under the patches of a block, zero outside the map.

    Their columns are sorted by their place in a tile, (N, 4 * rows + 2, 4, columns + 1, channels):
    the values of neighboring patches are neighbors in memory.
    """
    pixels = pixels[block.maps]
    num_maps, height, width, channels = pixels.shape
    first = TILE * block.rows.start - 1
    rows = TILE * (block.rows.stop - block.rows.start) + 2
    columns = -(-width // TILE) + 1
    padded = pixels.new_zeros(num_maps, rows, TILE, columns, channels)
    top, bottom = max(first, 0), min(first + rows, height)
    for place in range(TILE):
        # Column 0 of the patches is the zero left of the map.
        start = (place - 1) % TILE
        own = pixels[:, top:bottom, start::TILE]
        skipped = 1 if place == 0 else 0
        padded[:, top - first : bottom - first, place, skipped : skipped + own.shape[2]] = own
    return padded


def _patch_sums(padded: Tensor) -> Tensor:
    """The places of all patches, (6, 6, N, rows, columns, channels)."""
    num_maps, height, _, width, channels = padded.shape
    rows, columns = height // TILE, width - 1
    row_sums = padded.new_empty(PATCH, num_maps, rows, TILE, width, channels)
    _sum_patch([padded[:, i : i + TILE * rows - 3 : TILE] for i in range(PATCH)], row_sums)
    sums = padded.new_empty(PATCH, PATCH, num_maps, rows, columns, channels)
    steps = [row_sums[..., j % TILE, j // TILE : j // TILE + columns, :] for j in range(PATCH)]
    _sum_patch(steps, sums.unbind(1))
    return sums


def _tile_sums(products: Tensor, tiles: Tensor) -> None:
    """Sums the products of all places, and writes into (N, 4 * rows, 4 * columns, channels)."""
    row_sums = products.new_empty(TILE, *products.shape[1:])
    _sum_tile(products, row_sums)
    grid = tiles.unflatten(1, (-1, TILE)).unflatten(3, (-1, TILE)).permute(2, 4, 0, 1, 3, 5)
    _sum_tile(row_sums.unbind(1), grid.unbind(1))


def _sum_patch(patch: Sequence[Tensor], places: Sequence[Tensor]) -> None:
    """From six values along one direction to six places, in twelve passes over memory."""
    even = torch.sub(patch[4], patch[2], alpha=4)
    odd = torch.sub(patch[3], patch[1], alpha=4)
    torch.add(even, odd, out=places[1])
    torch.sub(even, odd, out=places[2])
    torch.sub(patch[4], patch[2], out=even)
    torch.sub(patch[3], patch[1], out=odd)
    torch.add(even, odd, alpha=2, out=places[3])
    torch.sub(even, odd, alpha=2, out=places[4])
    torch.sub(patch[0], patch[2], out=places[0])
    torch.add(even, places[0], alpha=4, out=places[0])
    torch.sub(patch[5], patch[3], out=places[5])
    torch.sub(places[5], odd, alpha=4, out=places[5])


def _sum_tile(places: Sequence[Tensor], tile: Sequence[Tensor]) -> None:
    """From six places along one direction to four values, in ten passes over memory."""
    even, odd = places[1] + places[2], places[1] - places[2]
    even_2, odd_2 = places[3] + places[4], places[3] - places[4]
    torch.add(places[0], even, out=tile[0])
    tile[0].add_(even_2)
    torch.add(odd, odd_2, alpha=2, out=tile[1])
    torch.add(even, even_2, alpha=4, out=tile[2])
    torch.add(places[5], odd, out=tile[3])
    tile[3].add_(odd_2, alpha=8)
