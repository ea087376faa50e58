"""Non-maximum suppression of poses by their OKS, and the groups that it leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from querypose.oks import pairwise_pose_oks


def greedy_seeds(alike: Tensor) -> Tensor:
    """Which poses become seeds if each takes all later ones that resemble it and are still free.

    Without data-dependent control flow, so that it can be exported.

    Args:
        alike: (..., n, n) bool, whether two poses resemble each other, in the order of their turns.

    Returns:
        (..., n) bool.
    """
    count = alike.shape[-1]
    turns = torch.arange(count, device=alike.device)
    taken_by = alike & (turns[:, None] < turns)
    seeds = alike.new_ones(alike.shape[:-1])
    for turn in range(count):
        seeds = seeds & ~(taken_by[..., turn, :] & seeds[..., turn : turn + 1])
    return seeds


def group_in_turns(
    poses: Tensor,
    order: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Groups poses greedily: in its turn, a free pose takes all free poses that resemble it.

    Args:
        poses: (..., n, K, 2).
        order: (..., n) int64, the pose of each turn.
        sigmas: (K,), OKS standard deviations.
        threshold: see :func:`group_poses`.
        classes: (..., n), see :func:`group_poses`.

    Returns:
        Per turn, (..., n) bool, whether its pose was free; and, (..., n, n) bool, the poses that it
        took, itself among them: none where it was not free.
    """
    poses = poses.gather(-3, order[..., None, None].expand_as(poses))
    classes = None if classes is None else classes.gather(-1, order)
    alike = pairwise_pose_oks(poses, poses, sigmas) > threshold
    if classes is not None:
        alike &= classes[..., :, None] == classes[..., None, :]
    seeds = greedy_seeds(alike)
    turns = torch.arange(alike.shape[-1], device=alike.device)
    resembles = (alike & (turns[:, None] < turns)) | (turns[:, None] == turns)
    claims = resembles & seeds[..., None]
    groups = claims & (claims.int().cumsum(dim=-2) == 1)
    turn_of_pose = order.argsort(dim=-1)
    return seeds, groups.gather(-1, turn_of_pose[..., None, :].expand_as(groups))


def group_poses(
    poses: Tensor,
    order: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The seeds and groups of :func:`group_in_turns`, without the turns of poses that were taken.

    Args:
        poses: (n, K, 2).
        order: (n,) int64, in which poses become seeds.
        sigmas: (K,), OKS standard deviations.
        threshold: two poses resemble each other where their OKS, see
            :func:`querypose.oks.pairwise_pose_oks`, is above it.
        classes: (n,) of the persons; poses of different classes do not resemble each other. None
            if there is one class.

    Returns:
        The seeds, (m,) int64, in their order, and the members of each one's group, (m, n) bool.
    """
    is_seed, groups = group_in_turns(poses, order, sigmas, threshold, classes)
    return order[is_seed], groups[is_seed]


def best_of_alike(
    poses: Tensor,
    scores: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
) -> Tensor:
    """Keeps, from the best pose down, those that resemble no kept one.

    Args:
        poses: (..., n, K, 2).
        scores: (..., n); of poses of one score, the earlier comes first.
        sigmas: (K,), OKS standard deviations.
        threshold: see :func:`group_poses`.
        classes: (..., n), see :func:`group_poses`.

    Returns:
        (..., n) bool, which are kept.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    seeds, _ = group_in_turns(poses, order, sigmas, threshold, classes)
    return torch.zeros_like(seeds).scatter(-1, order, seeds)


def oks_nms(
    poses: Tensor,
    scores: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
) -> Tensor:
    """Indices of the poses that :func:`best_of_alike` keeps of (n, K, 2), best first.

    Of poses of one score, the earlier comes first.
    """
    order = scores.argsort(descending=True, stable=True)
    return group_poses(poses, order, sigmas, threshold, classes)[0]
