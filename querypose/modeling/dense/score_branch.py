"""Pose query encoding (PQE): a pose is scored by the features at its keypoints.

At every cell, instance features R_I are gathered at the positions of the pose query and mapped to
one score (Xiao et al., AAAI 2022, section "Pose Query Encoding", equation 7). Bilinear sampling is
linear, so the convolution that follows is applied before it: few channels are sampled per point,
and their sum is all that is kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from querypose.modeling.dense.cells import cell_positions
from querypose.modeling.dense.sampling import sample_maps


class ScoreBranch(nn.Module):
    """Scores poses at every cell.

    Args:
        in_channels: of the backbone's map.
        num_points: P, positions of the pose query; 0 where the score sees its own cell alone.
        has_free_points: whether the branch predicts the positions itself.
        instance_channels: of R_I.
        score_channels: that the score is predicted from.
        has_quality: whether a second map predicts the OKS.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_points: int,
        has_free_points: bool,
        instance_channels: int,
        score_channels: int,
        has_quality: bool,
    ) -> None:
        super().__init__()
        self.num_points = num_points
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, instance_channels, 1, bias=False),
            nn.BatchNorm2d(instance_channels),
            nn.ReLU(),
        )
        self.free_points = (
            nn.Conv2d(instance_channels, 2 * num_points, 3, padding=1) if has_free_points else None
        )
        gathered = max(num_points, 1) * instance_channels
        self.reduce = nn.Conv2d(gathered, score_channels, 1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(score_channels)
        self.score = nn.Conv2d(score_channels, 1, 1)
        self.quality = nn.Conv2d(score_channels, 1, 1) if has_quality else None

    def forward(self, features: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores and, with a quality branch, OKS of the poses at all cells.

        Args:
            features: of the backbone, (B, C, H, W).
            points: displacements from every cell to the positions of its pose query,
                (B, P, 2, H, W) in cells; None where there is no pose query or it is the branch's
                own.

        Returns:
            (B, 1, H, W) each, float32, of any value; None for what is not predicted.
        """
        instance = self.features(features)
        if self.free_points is not None:
            points = self.free_points(instance).float().unflatten(1, (-1, 2))
        gathered = self.reduce(instance) if points is None else self._gather(instance, points)
        with torch.autocast(features.device.type, enabled=False):
            reduced = self.reduce_norm(gathered.float()).relu()
            return self.score(reduced), None if self.quality is None else self.quality(reduced)

    def _gather(self, instance: Tensor, points: Tensor) -> Tensor:
        """``reduce`` of R_I at all points, (B, score_channels, H, W)."""
        places = points.permute(1, 0, 3, 4, 2)
        places = places + cell_positions(tuple(instance.shape[-2:]), instance.device)
        weights = self.reduce.weight.chunk(self.num_points, dim=1)
        return sum(
            sample_maps(F.conv2d(instance, weight), place)
            for weight, place in zip(weights, places, strict=True)
        )
