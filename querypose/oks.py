"""Object keypoint similarity (OKS): how well one pose matches another, from 0 to 1.

A keypoint that is ``d`` pixels off counts ``exp(-d^2 / (2 * area * (2 * sigma)^2))``; the OKS of a
pose is the mean over its keypoints (COCO's keypoint evaluation). ``sigma`` says how precisely a
kind of keypoint can be labeled, see :class:`querypose.skeleton.Skeleton`.
"""

from __future__ import annotations

import torch
from torch import Tensor

PERSON_AREA_PER_BOX_AREA = 0.53
"""How much of a box a person covers; stands in for a segmented area that is not annotated."""

# Of a person in square pixels: where a box is empty, similarities are 0 or 1 and never NaN.
_SMALLEST_AREA = 1e-6


def person_areas(boxes_xyxy: Tensor) -> Tensor:
    """Areas of persons of whom only the boxes are known, as CrowdPose's evaluation defines them.

    Args:
        boxes_xyxy: (..., 4).

    Returns:
        (...), in square units of the boxes.
    """
    return PERSON_AREA_PER_BOX_AREA * _box_areas(boxes_xyxy)


def keypoint_similarity(squared_distances: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """What each keypoint counts in an OKS.

    Args:
        squared_distances: between two places of each keypoint, (..., K).
        areas: of the persons, (...), in the unit of ``squared_distances``.
        sigmas: (K,).

    Returns:
        (..., K), each in 0..1.
    """
    variances = areas.clamp(min=_SMALLEST_AREA)[..., None] * (2 * sigmas) ** 2
    return torch.exp(-squared_distances / (2 * variances))


def paired_oks(
    predicted: Tensor, targets: Tensor, areas: Tensor, sigmas: Tensor, weights: Tensor
) -> Tensor:
    """OKS of pairs of poses.

    Args:
        predicted: (..., K, 2) places.
        targets: (..., K, 2) places.
        areas: of the targets, (...).
        sigmas: (K,).
        weights: (..., K), not negative; for COCO's OKS, 1 where a keypoint is labeled, else 0.

    Returns:
        (...), each in 0..1; 0 where all weights are 0.
    """
    squared_distances = (predicted - targets).square().sum(dim=-1)
    similarity = keypoint_similarity(squared_distances, areas, sigmas)
    totals = weights.sum(dim=-1)
    mean = (similarity * weights).sum(dim=-1) / torch.where(totals > 0, totals, 1)
    return torch.where(totals > 0, mean, 0)


def pairwise_oks(predicted: Tensor, targets: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """OKS of every prediction with every labeled person, as in pycocotools' ``computeOks``.

    Args:
        predicted: (M, K, 2) places.
        targets: (N, K, 3) places and visibilities; a keypoint of visibility 0 does not count.
        areas: of the targets, (N,).
        sigmas: (K,).

    Returns:
        (M, N), each in 0..1; 0 with a person who has no labeled keypoint.
    """
    labeled = (targets[None, ..., 2] > 0).to(predicted.dtype)
    return paired_oks(predicted[:, None], targets[None, ..., :2], areas[None], sigmas, labeled)


def pairwise_pose_oks(
    poses: Tensor, others: Tensor, sigmas: Tensor, weights: Tensor | None = None
) -> Tensor:
    """OKS of every predicted pose with every other one.

    A person's area is the mean of the areas of the two boxes that enclose the keypoints, so that
    the similarity does not depend on the scale, nor on which of the two comes first.

    Args:
        poses: (M, K, 2) places.
        others: (N, K, 2) places.
        sigmas: (K,).
        weights: (M, N, K), not negative; None counts all keypoints alike.

    Returns:
        (M, N), each in 0..1.
    """
    areas = (_extents(poses)[:, None] + _extents(others)[None]) / 2
    if weights is None:
        weights = poses.new_ones(len(poses), len(others), poses.shape[1])
    return paired_oks(poses[:, None], others[None], areas, sigmas, weights)


def expected_oks(deviations: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """The OKS to expect of keypoints with normally distributed errors.

    The mean of ``exp(-x^2 / 2v)`` over errors ``x`` of deviation s is ``sqrt(v / (v + s^2))``, in
    one dimension.

    Args:
        deviations: (M, K, 2), along x and y.
        areas: of the persons, (M,).
        sigmas: (K,).

    Returns:
        (M,), each in 0..1.
    """
    variances = areas.clamp(min=_SMALLEST_AREA)[:, None] * (2 * sigmas) ** 2
    similarity = (1 + deviations.square() / variances[..., None]).rsqrt()
    return similarity.prod(dim=-1).mean(dim=-1)


def _extents(poses: Tensor) -> Tensor:
    """Areas of the boxes that enclose (M, K, 2) poses, (M,)."""
    return (poses.amax(dim=1) - poses.amin(dim=1)).prod(dim=-1)


def _box_areas(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(dim=-1)
