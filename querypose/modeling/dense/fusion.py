"""PINet's fusion: poses that parts of one person propose become one pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from querypose.modeling.dense.sampling import extent_of, sample_maps
from querypose.modeling.finite import refuse_infinite
from querypose.modeling.pose_nms import group_in_turns

SORT_KEYS = ("pose_score", "part_score")
"""What makes a pose a seed: its mean keypoint score (published code), or that of the part which
proposed it (supplement)."""

# Poses of a higher OKS belong to one person (published code).
_OKS_THRESHOLD = 0.7
# How far left of the first cell a keypoint may be: the published program enlarges heat maps by four
# before it reads them, and this is what its first column covers.
_BORDER = 0.25


def score_keypoints(heatmaps: Tensor, poses: Tensor, part_scores: Tensor) -> Tensor:
    """Scores keypoints by their heat maps and by the part that proposed them.

    Args:
        heatmaps: (..., K, H, W).
        poses: (..., n, K, 2), in cells.
        part_scores: (..., n).

    Returns:
        (..., n, K); 0 where a keypoint is beyond the map.
    """
    extent = extent_of(heatmaps)
    inside = ((poses >= -_BORDER) & (poses < extent - _BORDER)).all(dim=-1)
    points = poses.clamp(min=0).minimum(extent - 1).transpose(-3, -2)
    values = sample_maps(heatmaps.flatten(0, -3)[:, None], points.flatten(0, -3)[:, :, None])
    values = values.view(points.shape[:-1]).transpose(-2, -1)
    return part_scores[..., None] * torch.where(inside, values, 0)


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
        sort_by: one of :data:`SORT_KEYS`.
        fuse: every keypoint becomes the best of its group; False keeps the seeds as they are.

    Raises:
        ValueError: there is no such sort key.
    """

    def __init__(self, sigmas: Sequence[float], *, sort_by: str, fuse: bool) -> None:
        if sort_by not in SORT_KEYS:
            raise ValueError(f"MODEL.PINET.SORT_BY is one of {SORT_KEYS}, not {sort_by!r}.")
        self.sigmas = sigmas
        self.sort_by = sort_by
        self.fuse = fuse

    def __call__(self, poses: Tensor, keypoint_scores: Tensor, part_scores: Tensor) -> FusedPoses:
        """Fuses the poses of one image.

        Args:
            poses: (n, K, 2).
            keypoint_scores: (n, K).
            part_scores: (n,), of the parts that proposed the poses.

        Raises:
            FloatingPointError: a keypoint or its score is NaN or infinite.
        """
        refuse_infinite("keypoints or their scores", poses, keypoint_scores)
        if len(poses) == 0:
            nobody = poses.new_zeros(0, dtype=torch.int64)
            return FusedPoses(poses.new_zeros(0, poses.shape[1], 3), poses.new_zeros(0), nobody)
        keypoints, scores, groups = self.fuse_in_turns(poses, keypoint_scores, part_scores)
        is_person = scores > -torch.inf
        person_of_pose = groups[is_person].int().argmax(dim=0)
        return FusedPoses(keypoints[is_person], scores[is_person], person_of_pose)

    def fuse_in_turns(
        self, poses: Tensor, keypoint_scores: Tensor, part_scores: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fuses poses by operations that do not depend on how many there are.

        Args:
            poses: (..., n, K, 2).
            keypoint_scores: (..., n, K), -inf where there is no pose.
            part_scores: (..., n).

        Returns:
            Per turn of a pose, the person that it begins, (..., n, K, 3) places and scores; that
            person's score, (..., n), -inf where it begins none; and the poses that are fused into
            it, (..., n, n) bool, in the order of ``poses``.
        """
        # Of equal scores the earlier pose's wins: let that be the better pose's.
        by_score = keypoint_scores.mean(dim=-1).argsort(dim=-1, descending=True, stable=True)
        poses = poses.gather(-3, by_score[..., None, None].expand_as(poses))
        keypoint_scores = keypoint_scores.gather(-2, by_score[..., None].expand_as(keypoint_scores))
        if self.sort_by == "part_score":
            part_scores = torch.where(
                keypoint_scores[..., 0] > -torch.inf, part_scores.gather(-1, by_score), -torch.inf
            )
            order = part_scores.argsort(dim=-1, descending=True, stable=True)
        else:
            order = torch.arange(poses.shape[-3], device=poses.device).expand_as(by_score)
        sigmas = poses.new_tensor(self.sigmas)
        is_seed, groups = group_in_turns(poses, order, sigmas, _OKS_THRESHOLD)
        chosen = order[..., None].expand_as(keypoint_scores)
        if self.fuse:
            chosen = _best_members(groups, order, keypoint_scores)
        scores = keypoint_scores.gather(-2, chosen)
        places = poses.gather(-3, chosen[..., None].expand_as(poses))
        person_scores = torch.where(is_seed, scores.mean(dim=-1), -torch.inf)
        in_given_order = by_score.argsort(dim=-1)[..., None, :].expand_as(groups)
        return (
            torch.cat([places, scores[..., None]], dim=-1),
            person_scores,
            groups.gather(-1, in_given_order),
        )


def _best_members(groups: Tensor, seeds: Tensor, keypoint_scores: Tensor) -> Tensor:
    """For every group's keypoints the member of the best score; of equal ones the seed.

    Args:
        groups: (..., n, n) bool: turns, poses.
        seeds: (..., n), the pose of each turn.
        keypoint_scores: (..., n, K).

    Returns:
        (..., n, K), indices of poses.
    """
    scores = torch.where(groups[..., None], keypoint_scores[..., None, :, :], -torch.inf)
    of_seed = keypoint_scores.gather(-2, seeds[..., None].expand_as(keypoint_scores))
    seed_is_best = of_seed == scores.amax(dim=-2)
    return torch.where(seed_is_best, seeds[..., None], scores.argmax(dim=-2))
