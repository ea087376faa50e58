"""Non-maximum suppression of poses by their OKS, and the groups that it leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from querypose.oks import pairwise_pose_oks


def group_in_turns(
    poses: Tensor,
    order: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
    boxes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Groups poses greedily: in its turn, a free pose takes all free poses that resemble it.

    Without data-dependent control flow, so that it can be exported.

    Args:
        poses: (..., n, K, 2).
        order: (..., n) int64, the pose of each turn.
        sigmas: (K,), OKS standard deviations.
        threshold: two poses resemble each other where their OKS, see
            :func:`querypose.oks.pairwise_pose_oks`, is above it.
        classes: (..., n) of the persons; poses of different classes do not resemble each other.
            None if there is one class.
        boxes: (..., n, 4) xyxy of the persons, in the unit of ``poses``; None if they have none.

    Returns:
        Per turn, (..., n) bool, whether its pose was free; and, (..., n, n) bool, the poses that it
        took, itself among them: none where it was not free.
    """
    poses = poses.gather(-3, order[..., None, None].expand_as(poses))
    if boxes is not None:
        boxes = boxes.gather(-2, order[..., None].expand_as(boxes))
    alike = pairwise_pose_oks(poses, poses, sigmas, boxes=boxes, other_boxes=boxes) > threshold
    if classes is not None:
        classes = classes.gather(-1, order)
        alike &= classes[..., :, None] == classes[..., None, :]
    turns = torch.arange(alike.shape[-1], device=alike.device)
    later_and_alike = alike & (turns[:, None] < turns)
    free = _free_in_turn(later_and_alike)
    claims = (later_and_alike | (turns[:, None] == turns)) & free[..., None]
    groups = claims & (claims.int().cumsum(dim=-2) == 1)
    turn_of_pose = order.argsort(dim=-1)
    return free, groups.gather(-1, turn_of_pose[..., None, :].expand_as(groups))


def _free_in_turn(takes: Tensor) -> Tensor:
    """Which poses are free in their turn, (..., n) bool.

    Args:
        takes: (..., n, n) bool, the later poses that each one takes if it is free itself.
    """
    free = takes.new_ones(takes.shape[:-1])
    for turn in range(takes.shape[-1]):
        free = free & ~(takes[..., turn, :] & free[..., turn : turn + 1])
    return free


def best_of_alike(
    poses: Tensor,
    scores: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
    boxes: Tensor | None = None,
) -> Tensor:
    """Keeps, from the best pose down, those that resemble no kept one.

    Args:
        poses: (..., n, K, 2).
        scores: (..., n); of poses of one score, the earlier comes first.
        sigmas: (K,), OKS standard deviations.
        threshold: see :func:`group_in_turns`.
        classes: see :func:`group_in_turns`.
        boxes: see :func:`group_in_turns`.

    Returns:
        (..., n) bool, which are kept.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    free, _ = group_in_turns(poses, order, sigmas, threshold, classes, boxes)
    return torch.zeros_like(free).scatter(-1, order, free)
