"""PINet's three maps: keypoints, part centers, and a whole pose at every cell of every part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class PartMaps(NamedTuple):
    """The head's output for B images.

    Attributes:
        heatmaps: (B, K, H, W), where keypoints are.
        parts: (B, P, H, W), where part centers are.
        offsets: (B, P * 2K, H, W), keypoint minus cell in cells: part after part, in it keypoint
            after keypoint, in it x before y.
    """

    heatmaps: Tensor
    parts: Tensor
    offsets: Tensor


class PartCells(NamedTuple):
    """M cells that propose a pose each, those of the first image first.

    Attributes:
        images: (M,) int64, index of the image, ascending.
        parts: (M,) int64, index of the part.
        rows: (M,) int64.
        columns: (M,) int64.
    """

    images: Tensor
    parts: Tensor
    rows: Tensor
    columns: Tensor

    @property
    def positions(self) -> Tensor:
        """(M, 2) float32: x, y in cells."""
        return torch.stack([self.columns, self.rows], dim=-1).float()

    def read_parts(self, parts: Tensor) -> Tensor:
        """Reads (B, P, H, W) part maps at the cells, (M,)."""
        return parts[self.images, self.parts, self.rows, self.columns]

    def read_offsets(self, offsets: Tensor, num_keypoints: int) -> Tensor:
        """Reads (B, P * 2K, H, W) offsets at the cells, (M, K, 2)."""
        by_part = offsets.unflatten(1, (-1, num_keypoints, 2))
        return by_part[self.images, self.parts, :, :, self.rows, self.columns]

    def read_features(self, features: Tensor) -> Tensor:
        """Reads (B, C, H, W) features at the cells, (M, C)."""
        return features[self.images, :, self.rows, self.columns]

    def select(self, indices: Tensor) -> PartCells:
        """Some of the cells, by (m,) indices that keep the images in order."""
        return PartCells(*(field[indices] for field in self))

    def mirrored(self, width: int, partners: Sequence[int]) -> PartCells:
        """The same places in the mirrored image's map.

        Args:
            width: of the map, in columns.
            partners: for every part, the one that shows the same in the mirrored image.
        """
        parts = self.parts.new_tensor(partners)[self.parts]
        return self._replace(parts=parts, columns=width - 1 - self.columns)


class PartHead(nn.Module):
    """Three 1x1 convolutions (PINet's published code).

    Args:
        in_channels: of the features.
        num_keypoints: K.
        num_parts: P.
    """

    def __init__(self, *, in_channels: int, num_keypoints: int, num_parts: int) -> None:
        super().__init__()
        self.heatmaps = nn.Conv2d(in_channels, num_keypoints, 1)
        self.parts = nn.Conv2d(in_channels, num_parts, 1)
        self.offsets = nn.Conv2d(in_channels, num_parts * 2 * num_keypoints, 1)
        for conv in (self.heatmaps, self.parts, self.offsets):
            nn.init.normal_(conv.weight, std=0.001)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> PartMaps:
        """Maps (B, C, H, W) features to float32 maps of the same size."""
        return PartMaps(
            self.heatmaps(features).float(),
            self.parts(features).float(),
            self.offsets(features).float(),
        )
