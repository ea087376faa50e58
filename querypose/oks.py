"""Object keypoint similarity (OKS): how well one pose matches another, from 0 to 1.

The similarity of a keypoint at a distance ``d`` is ``exp(-d^2 / (2 * area * (2 * sigma)^2))``; the
OKS of a pose is the mean over its keypoints (COCO's keypoint evaluation). ``sigma`` is the standard
deviation of labels of this keypoint, see :class:`querypose.skeleton.Skeleton`.
"""

from __future__ import annotations

import torch
from torch import Tensor

PERSON_AREA_PER_BOX_AREA = 0.53
"""The fraction of a box that a person covers, for persons without an annotated area."""

# Of a pose: the least area of a person by the square of the longer side of the keypoints' box. Of
# 8,800 labeled persons of COCO and CrowdPose with ten keypoints or more, one in a thousand is
# narrower.
_MIN_ASPECT = 0.1
# Of a person who is a point: the side of a square by the shorter side of the image. A guess, by
# which a tracked point may be a twentieth of the image from where it is expected.
_POINT_SIDE = 0.1
# Of a person, in square pixels: similarities of an empty box are 0 or 1 rather than NaN.
_MIN_AREA = 1e-6


def person_areas(boxes_xyxy: Tensor) -> Tensor:
    """Areas of persons, estimated from their boxes as in CrowdPose's evaluation.

    Args:
        boxes_xyxy: (..., 4).

    Returns:
        (...), in square units of the boxes.
    """
    return PERSON_AREA_PER_BOX_AREA * (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(dim=-1)


def keypoint_similarity(squared_distances: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """Similarity of each keypoint; their mean is the OKS.

    Args:
        squared_distances: between two positions of each keypoint, (..., K).
        areas: of the persons, (...), in the unit of ``squared_distances``.
        sigmas: (K,).

    Returns:
        (..., K), each in 0..1.
    """
    return torch.exp(-squared_distances / (2 * _variances(areas, sigmas)))


def paired_oks(
    predicted: Tensor, targets: Tensor, areas: Tensor, sigmas: Tensor, weights: Tensor
) -> Tensor:
    """OKS of pairs of poses.

    Args:
        predicted: (..., K, 2) positions.
        targets: (..., K, 2) positions.
        areas: of the targets, (...).
        sigmas: (K,).
        weights: (..., K), not negative; for COCO's OKS, 1 if a keypoint is labeled, else 0.

    Returns:
        (...), each in 0..1; 0 if all weights are 0.
    """
    squared_distances = (predicted - targets).square().sum(dim=-1)
    similarity = keypoint_similarity(squared_distances, areas, sigmas)
    totals = weights.sum(dim=-1)
    mean = (similarity * weights).sum(dim=-1) / torch.where(totals > 0, totals, 1)
    return torch.where(totals > 0, mean, 0)


def pairwise_oks(predicted: Tensor, targets: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """OKS of every prediction with every labeled person, as in pycocotools' ``computeOks``.

    Args:
        predicted: (M, K, 2) positions.
        targets: (N, K, 3) positions and visibilities; a keypoint of visibility 0 does not count.
        areas: of the targets, (N,).
        sigmas: (K,).

    Returns:
        (M, N), each in 0..1; 0 for a person without labeled keypoints.
    """
    labeled = (targets[None, ..., 2] > 0).to(predicted.dtype)
    return paired_oks(predicted[:, None], targets[None, ..., :2], areas[None], sigmas, labeled)


def pose_areas(poses: Tensor, boxes_xyxy: Tensor | None = None) -> Tensor:
    """Areas of persons by their poses: of the boxes that enclose the keypoints.

    Keypoints may span nothing: two of a person who stands upright, or three in a line. Then the
    area follows from the person's box, and where there is none, or it encloses the keypoints alone,
    from the longer side. Only a single keypoint without a box has no area.

    Args:
        poses: (..., K, 2) positions.
        boxes_xyxy: of the persons, (..., 4), in the unit of ``poses``.

    Returns:
        (...), in square units of the positions.
    """
    sides = poses.amax(dim=-2) - poses.amin(dim=-2)
    spanned = sides.prod(dim=-1)
    least = _MIN_ASPECT * sides.amax(dim=-1).square()
    if boxes_xyxy is None:
        return spanned.maximum(least)
    largest = spanned.maximum(least).maximum(person_areas(boxes_xyxy))
    # What two keypoints span is a matter of the direction alone that they lie in.
    if poses.shape[-2] <= 2:
        return largest
    return torch.where(spanned <= least, largest, spanned)


def boxes_with_extent(boxes_xyxy: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Widens boxes that are lines or points, by which persons could not be compared.

    A box may enclose the keypoints alone, which lie in a line or are a single one. Then its shorter
    side is set by its longer one, and that of a point by the image: nothing else tells its size.

    Args:
        boxes_xyxy: (..., 4), in pixels.
        image_size: (height, width) in pixels.

    Returns:
        (..., 4); all other boxes as they are.
    """
    sides = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
    longer = sides.amax(dim=-1, keepdim=True)
    least = torch.where(longer > 0, _MIN_ASPECT * longer, _POINT_SIDE * min(image_size))
    missing = (least - sides).clamp(min=0) / 2
    return boxes_xyxy + torch.cat([-missing, missing], dim=-1)


def pairwise_pose_oks(
    poses: Tensor,
    others: Tensor,
    sigmas: Tensor,
    weights: Tensor | None = None,
    *,
    boxes: Tensor | None = None,
    other_boxes: Tensor | None = None,
) -> Tensor:
    """OKS of every pose with every other pose, symmetric and independent of the scale.

    The area is the mean of both persons', see :func:`pose_areas`: single keypoints without boxes
    are similar only where they are equal, since nothing says how far apart two persons are.

    Args:
        poses: (..., M, K, 2) positions.
        others: (..., N, K, 2) positions.
        sigmas: (K,).
        weights: (..., M, N, K), not negative; None weighs all keypoints the same.
        boxes: of the persons of ``poses``, (..., M, 4) xyxy.
        other_boxes: of those of ``others``, (..., N, 4) xyxy.

    Returns:
        (..., M, N), each in 0..1.
    """
    areas, other_areas = pose_areas(poses, boxes), pose_areas(others, other_boxes)
    areas = (areas[..., :, None] + other_areas[..., None, :]) / 2
    if weights is None:
        weights = poses.new_ones(poses.shape[-2])
    return paired_oks(poses[..., :, None, :, :], others[..., None, :, :, :], areas, sigmas, weights)


def expected_oks(deviations: Tensor, areas: Tensor, sigmas: Tensor) -> Tensor:
    """Expected OKS of keypoints with normally distributed errors.

    In one dimension, the mean of ``exp(-x^2 / 2v)`` over errors ``x`` with standard deviation ``s``
    is ``sqrt(v / (v + s^2))``.

    Args:
        deviations: standard deviations along x and y, (M, K, 2).
        areas: of the persons, (M,).
        sigmas: (K,).

    Returns:
        (M,), each in 0..1.
    """
    variances = _variances(areas, sigmas)[..., None]
    similarity = (1 + deviations.square() / variances).rsqrt()
    return similarity.prod(dim=-1).mean(dim=-1)


def _variances(areas: Tensor, sigmas: Tensor) -> Tensor:
    """Variances (..., K) of keypoints of persons with areas (...)."""
    return areas.clamp(min=_MIN_AREA)[..., None] * (2 * sigmas) ** 2
