"""PINet's fusion: poses that parts of one person propose become one pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from querypose.modeling.dense.sampling import sample_maps
from querypose.modeling.pose_nms import group_poses

SORT_KEYS = ("pose_score", "part_score")
"""What makes a pose a seed: its mean keypoint score (published code), or that of the part which
proposed it (supplement)."""

# How far left of the first cell a keypoint may be: the published program enlarges heat maps by four
# before it reads them, and this is what its first column covers.
_BORDER = 0.25


def score_keypoints(heatmaps: Tensor, poses: Tensor, part_scores: Tensor) -> Tensor:
    """Scores keypoints by their heat maps and by the part that proposed them.

    Args:
        heatmaps: (K, H, W) of one image.
        poses: (n, K, 2), in cells.
        part_scores: (n,).

    Returns:
        (n, K); 0 where a keypoint is beyond the map.
    """
    height, width = heatmaps.shape[1:]
    extent = poses.new_tensor([width, height])
    inside = ((poses >= -_BORDER) & (poses < extent - _BORDER)).all(dim=-1)
    points = poses.clamp(min=0).minimum(extent - 1).transpose(0, 1)
    values = sample_maps(heatmaps[:, None], points[:, :, None])[:, 0, :, 0].transpose(0, 1)
    return part_scores[:, None] * torch.where(inside, values, 0)


class FusedPoses(NamedTuple):
    """m persons made of n poses, in the order of their seeds.

    Attributes:
        keypoints: (m, K, 3) places and scores.
        scores: (m,).
        person_of_pose: (n,) int64, to whom each pose belongs.
    """

    keypoints: Tensor
    scores: Tensor
    person_of_pose: Tensor


class PoseFusion:
    """Makes one pose of every group of poses (supplement, algorithm 1).

    Args:
        sigmas: (K,), OKS standard deviations.
        threshold: see :func:`querypose.modeling.pose_nms.group_poses`.
        sort_by: one of :data:`SORT_KEYS`.
        fuse: every keypoint becomes the best of its group; False keeps the seeds as they are.

    Raises:
        ValueError: there is no such sort key.
    """

    def __init__(
        self, sigmas: Sequence[float], *, threshold: float, sort_by: str, fuse: bool
    ) -> None:
        if sort_by not in SORT_KEYS:
            raise ValueError(f"MODEL.PINET.SORT_BY is one of {SORT_KEYS}, not {sort_by!r}.")
        self.sigmas = sigmas
        self.threshold = threshold
        self.sort_by = sort_by
        self.fuse = fuse

    def __call__(self, poses: Tensor, keypoint_scores: Tensor, part_scores: Tensor) -> FusedPoses:
        """Fuses the poses of one image.

        Args:
            poses: (n, K, 2).
            keypoint_scores: (n, K).
            part_scores: (n,), of the parts that proposed the poses.
        """
        if len(poses) == 0:
            nobody = poses.new_zeros(0, dtype=torch.int64)
            return FusedPoses(poses.new_zeros(0, poses.shape[1], 3), poses.new_zeros(0), nobody)
        # Of equal scores the earlier pose's wins: let that be the better pose's.
        by_pose_score = keypoint_scores.mean(dim=1).argsort(descending=True, stable=True)
        poses, keypoint_scores = poses[by_pose_score], keypoint_scores[by_pose_score]
        order = torch.arange(len(poses), device=poses.device)
        if self.sort_by == "part_score":
            order = part_scores[by_pose_score].argsort(descending=True, stable=True)
        seeds, groups = group_poses(poses, order, poses.new_tensor(self.sigmas), self.threshold)
        chosen = seeds[:, None].expand(-1, poses.shape[1])
        if self.fuse:
            chosen = _best_members(groups, seeds, keypoint_scores)
        keypoints = torch.arange(poses.shape[1], device=poses.device)
        scores = keypoint_scores[chosen, keypoints]
        person_of_pose = torch.empty_like(order)
        person_of_pose[by_pose_score] = groups.int().argmax(dim=0)
        fused = torch.cat([poses[chosen, keypoints], scores[..., None]], dim=-1)
        return FusedPoses(fused, scores.mean(dim=1), person_of_pose)


def _best_members(groups: Tensor, seeds: Tensor, keypoint_scores: Tensor) -> Tensor:
    """For every group's keypoints the member of the best score, (m, K); of equal ones the seed."""
    scores = torch.where(groups[..., None], keypoint_scores, -torch.inf)
    seed_is_best = keypoint_scores[seeds] == scores.amax(dim=1)
    return torch.where(seed_is_best, seeds[:, None], scores.argmax(dim=1))
