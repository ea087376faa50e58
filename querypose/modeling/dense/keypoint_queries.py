"""Keypoint query encoding (KQE): the features near a first estimate of a keypoint refine it.

Every keypoint has channels of its own, R_k. At a cell c they predict a first estimate of its
position, the query q, and N semantic points around q. R'_k, which is R_k at those points, predicts
how far the keypoint is from q (Xiao et al., AAAI 2022, section "Keypoint Query Encoding").

Displacements are in cells and are added: keypoint = c + (c to q) + (q to keypoint).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from querypose.modeling.dense.cells import Cells, cell_positions
from querypose.modeling.dense.grouped_conv import conv_at_cells, grouped_linear
from querypose.modeling.dense.sampling import sample_group_points, sample_maps

AGGREGATIONS = ("sum", "deform")


class KeypointMaps(nn.Module):
    """R_k of every keypoint and, with queries, the displacement from every cell to the query.

    Args:
        in_channels: of the backbone's map.
        num_keypoints: K.
        channels: of R_k, c.
        has_queries: False where keypoints are read from R_k directly.
    """

    def __init__(
        self, *, in_channels: int, num_keypoints: int, channels: int, has_queries: bool
    ) -> None:
        super().__init__()
        width = num_keypoints * channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.query = (
            nn.Conv2d(width, 2 * num_keypoints, 3, padding=1, groups=num_keypoints)
            if has_queries
            else None
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps (B, C, H, W) to R_k, (B, K * c, H, W), and to the queries, (B, 2 K, H, W)."""
        maps = self.features(features)
        if self.query is None:
            return maps, None
        with torch.autocast(maps.device.type, enabled=False):
            return maps, self.query(maps.float())


class KeypointDecoder(nn.Module):
    """From R_k and the queries to keypoints, at some cells or at all.

    Args:
        num_keypoints: K.
        channels: of R_k, c.
        num_semantic_points: N; at 0, R'_k is R_k at the query itself.
        aggregate: what makes R'_k of the N samples: "sum", or "deform", a sum weighted by a matrix
            per keypoint and point, with batch norm and ReLU.
        has_queries: False where keypoints are read from R_k directly.
    """

    def __init__(
        self,
        *,
        num_keypoints: int,
        channels: int,
        num_semantic_points: int,
        aggregate: str,
        has_queries: bool,
    ) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        width = num_keypoints * channels
        has_points = has_queries and num_semantic_points > 0
        self.semantic = (
            nn.Conv2d(
                width, 2 * num_semantic_points * num_keypoints, 3, padding=1, groups=num_keypoints
            )
            if has_points
            else None
        )
        # Its kernel holds the matrices of the points side by side.
        self.aggregation = (
            nn.Conv2d(width, width, (1, num_semantic_points), groups=num_keypoints, bias=False)
            if has_points and aggregate == "deform"
            else None
        )
        self.aggregation_norm = nn.BatchNorm2d(width) if self.aggregation is not None else None
        self.keypoint = nn.Conv2d(width, 2 * num_keypoints, 1, groups=num_keypoints)

    def forward(self, maps: Tensor, queries: Tensor | None, cells: Cells) -> Tensor:
        """Displacements to the keypoints at some cells.

        Args:
            maps: R_k, (B, K * c, H, W).
            queries: (B, 2 K, H, W), or None.
            cells: M cells.

        Returns:
            (M, K, 2) in cells, float32.
        """
        if self.aggregation_norm is not None and self.aggregation_norm.training:
            # The batch norm's statistics are those of all cells.
            return cells.read(self.everywhere(maps, queries)).unflatten(1, (-1, 2))
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            if queries is None:
                return conv_at_cells(self.keypoint, maps, cells)
            to_query = cells.read(queries).unflatten(1, (-1, 2))
            points = (cells.positions[:, None] + to_query)[:, :, None]
            if self.semantic is not None:
                to_points = conv_at_cells(self.semantic, maps, cells)
                points = points + to_points.unflatten(2, (-1, 2))
            samples = sample_group_points(maps, points, cells.images)
            return to_query + grouped_linear(self.keypoint, self._aggregate(samples))

    def everywhere(self, maps: Tensor, queries: Tensor | None) -> Tensor:
        """Displacements to the keypoints at all cells.

        Args:
            maps: R_k, (B, K * c, H, W).
            queries: (B, 2 K, H, W), or None.

        Returns:
            (B, 2 K, H, W) in cells, float32.
        """
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            if queries is None:
                return self.keypoint(maps)
            return queries + self.keypoint(self._aggregate_everywhere(maps, queries))

    def semantic_points(self, maps: Tensor, queries: Tensor) -> Tensor:
        """Displacements to the semantic points, or to the queries where there are none.

        Args:
            maps: R_k, (B, K * c, H, W).
            queries: (B, 2 K, H, W).

        Returns:
            (B, K, N, 2, H, W) in cells, float32.
        """
        points = queries.unflatten(1, (self.num_keypoints, 1, 2))
        if self.semantic is None:
            return points
        with torch.autocast(maps.device.type, enabled=False):
            to_points = self.semantic(maps.float())
        return points + to_points.unflatten(1, (self.num_keypoints, -1, 2))

    def _aggregate(self, samples: Tensor) -> Tensor:
        """R'_k (M, K, c) of (M, K, N, c) samples."""
        if self.aggregation is None:
            return samples.sum(dim=2)
        matrices = self.aggregation.weight.squeeze(2).unflatten(0, (self.num_keypoints, -1))
        aggregated = torch.einsum("mkni,koin->mko", samples, matrices)
        normalized = self.aggregation_norm(aggregated.flatten(1)[..., None, None])
        return normalized.relu().view_as(aggregated)

    def _aggregate_everywhere(self, maps: Tensor, queries: Tensor) -> Tensor:
        """R'_k at all cells, (B, K * c, H, W)."""
        points = self.semantic_points(maps, queries).permute(2, 0, 1, 4, 5, 3)
        points = points + cell_positions(tuple(maps.shape[-2:]), maps.device)
        by_keypoint = maps.unflatten(1, (self.num_keypoints, -1)).flatten(0, 1)
        total = torch.zeros_like(maps)
        for index, places in enumerate(points):
            sampled = sample_maps(by_keypoint, places.flatten(0, 1)).view_as(maps)
            if self.aggregation is not None:
                matrices = self.aggregation.weight[..., index, None]
                sampled = nn.functional.conv2d(sampled, matrices, groups=self.num_keypoints)
            total = total + sampled
        return total if self.aggregation is None else self.aggregation_norm(total).relu()
