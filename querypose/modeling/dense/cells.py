"""Cells of the output map, and where they are in the image.

Cell ``j`` lies on pixel ``4 j``, the center of its receptive field. Detectron2 counts pixels from
their edges, so that pixel has the continuous coordinate ``4 j + 0.5``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor

STRIDE = 4
"""Pixels of the network's input per cell."""


def only_map(backbone: Backbone) -> ShapeSpec:
    """The shape of the one feature map that a dense method reads.

    Raises:
        ValueError: the backbone has several maps, or one of another stride.
    """
    shapes = backbone.output_shape()
    if [shape.stride for shape in shapes.values()] != [STRIDE]:
        maps = ", ".join(f"{name} of stride {shape.stride}" for name, shape in shapes.items())
        raise ValueError(
            f"Dense methods read one map of stride {STRIDE}, but the backbone has {maps}: set "
            "MODEL.BACKBONE.NAME to build_hrnet_concat_backbone or build_timm_concat_backbone."
        )
    return next(iter(shapes.values()))


def pad_map(values: Tensor, size: tuple[int, int], fill: int) -> Tensor:
    """Extends (..., h, w) maps of an image to the (height, width) of its batch."""
    height, width = values.shape[-2:]
    return F.pad(values, (0, size[1] - width, 0, size[0] - height), value=fill)


class Cells(NamedTuple):
    """M cells of a batch of maps, those of the first image first.

    Attributes:
        images: (M,) int64, index of the image, ascending.
        rows: (M,) int64.
        columns: (M,) int64.
    """

    images: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def where(cls, mask: Tensor) -> Cells:
        """The cells at which a (B, H, W) mask is true, row by row."""
        return cls(*mask.nonzero(as_tuple=True))

    @property
    def positions(self) -> Tensor:
        """(M, 2) float32: x, y in cells."""
        return torch.stack([self.columns, self.rows], dim=-1).float()

    def read(self, maps: Tensor) -> Tensor:
        """Reads (B, C, H, W) maps at the cells, (M, C)."""
        return maps[self.images, :, self.rows, self.columns]


def pixels_to_cells(pixels: Tensor) -> Tensor:
    """Turns continuous pixels of the network's input into cells."""
    return (pixels - 0.5) / STRIDE


def cells_to_pixels(cells: Tensor) -> Tensor:
    """Turns cells into continuous pixels of the network's input."""
    return cells * STRIDE + 0.5


def map_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, in cells, of the map of an image of this height and width in pixels."""
    height, width = image_size
    return math.ceil(height / STRIDE), math.ceil(width / STRIDE)


def is_in_map(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether (..., 2) points, x and y in cells, are at 0 or more and below (height, width)."""
    height, width = size
    return (points >= 0).all(dim=-1) & (points < points.new_tensor([width, height])).all(dim=-1)


def cell_positions(size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Positions of all cells of a map, (height, width, 2) float32: x, y."""
    rows, columns = (torch.arange(length, device=device).float() for length in size)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
