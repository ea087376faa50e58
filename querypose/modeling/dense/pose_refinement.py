"""PINet's refinement: a graph of a pose's keypoints corrects the pose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from querypose.modeling.dense.part_head import PartCells
from querypose.modeling.dense.sampling import extent_of, sample_points

SAMPLERS = ("exact", "released")
"""How features are sampled between cells; the authors' weights were trained with "released"."""


class GraphBlock(nn.Module):
    """A graph convolution with batch norm and ReLU.

    Args:
        channels: of every node, in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.norm = nn.BatchNorm1d(channels)
        nn.init.xavier_uniform_(self.weight, gain=1.414)
        bound = 1 / math.sqrt(channels)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Maps (M, K, C) nodes; node j of the result mixes nodes k by ``adjacency[j, k]``."""
        mixed = adjacency @ (nodes @ self.weight) + self.bias
        return self.norm(mixed.flatten(0, 1)).view_as(mixed).relu()


class PoseRefinement(nn.Module):
    """Corrects poses by the features at their keypoints (PINet's published code).

    Args:
        channels: of the features.
        num_keypoints: K.
        edges: pairs of keypoints that start as neighbors.
        num_layers: residual pairs of graph blocks after the first block.
        sampler: one of :data:`SAMPLERS`.

    Raises:
        ValueError: there is no such sampler.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_keypoints: int,
        edges: Sequence[tuple[int, int]],
        num_layers: int,
        sampler: str = "exact",
    ) -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            raise ValueError(f"MODEL.PINET.SAMPLER is one of {SAMPLERS}, not {sampler!r}.")
        self.sampler = sampler
        self.adjacency = nn.Parameter(normalized_adjacency(num_keypoints, edges))
        self.first_block = GraphBlock(channels)
        self.layers = nn.ModuleList(
            nn.ModuleList([GraphBlock(channels), GraphBlock(channels)]) for _ in range(num_layers)
        )
        self.reduction = nn.Sequential(
            nn.Linear(3 * channels, channels), nn.BatchNorm1d(channels), nn.ReLU()
        )
        self.correction = nn.Linear(channels, 2 * num_keypoints)

    def forward(self, features: Tensor, poses: Tensor, cells: PartCells) -> Tensor:
        """Computes what to add to poses.

        No gradient reaches the poses.

        Args:
            features: (B, C, H, W).
            poses: (M, K, 2), in cells.
            cells: M, which proposed the poses.

        Returns:
            (M, K, 2) corrections in cells.
        """
        points = poses.detach()
        if self.sampler == "released":
            points = _shifted(points, extent_of(features))
        nodes = sample_points(features, points, cells.images)
        nodes = self.first_block(nodes, self.adjacency)
        for first, second in self.layers:
            nodes = nodes + second(first(nodes, self.adjacency), self.adjacency)
        center = cells.read_features(features)
        pooled = torch.cat([nodes.mean(dim=1), nodes.amax(dim=1), center], dim=1)
        return self.correction(self.reduction(pooled)).float().view_as(poses)


def normalized_adjacency(num_keypoints: int, edges: Sequence[tuple[int, int]]) -> Tensor:
    """``D^(-1/2) (A + I) D^(-1/2)`` of an undirected graph, (K, K)."""
    adjacency = torch.eye(num_keypoints)
    for start, end in edges:
        adjacency[start, end] = adjacency[end, start] = 1
    scale = adjacency.sum(dim=1).rsqrt()
    return scale[:, None] * adjacency * scale


def _shifted(points: Tensor, extent: Tensor) -> Tensor:
    """Where the published program really samples when it means ``points``.

    It divides by the size less one, as for aligned corners, and samples without aligning them.
    """
    return points * extent / (extent - 1) - 0.5
