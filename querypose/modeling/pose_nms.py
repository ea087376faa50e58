"""Non-maximum suppression of poses by their OKS, and the groups that it leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from querypose.oks import pairwise_pose_oks


def group_poses(
    poses: Tensor,
    order: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Groups poses greedily: each seed takes all free poses that resemble it.

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
    alike = pairwise_pose_oks(poses, poses, sigmas) > threshold
    if classes is not None:
        alike &= classes[:, None] == classes
    alike = alike.cpu()
    free = torch.ones(len(poses), dtype=torch.bool)
    seeds, groups = [], [torch.zeros(0, len(poses), dtype=torch.bool)]
    for pose in order.tolist():
        if free[pose]:
            group = alike[pose] & free
            group[pose] = True
            free &= ~group
            seeds.append(pose)
            groups.append(group[None])
    device = poses.device
    return torch.tensor(seeds, dtype=torch.long, device=device), torch.cat(groups).to(device)


def oks_nms(
    poses: Tensor,
    scores: Tensor,
    sigmas: Tensor,
    threshold: float,
    classes: Tensor | None = None,
) -> Tensor:
    """Keeps, from the best pose down, those that resemble no kept one.

    Args:
        poses: (n, K, 2).
        scores: (n,).
        sigmas: (K,), OKS standard deviations.
        threshold: see :func:`group_poses`.
        classes: see :func:`group_poses`.

    Returns:
        Indices of the kept poses, best first; of poses of one score, the earlier first.
    """
    order = scores.argsort(descending=True, stable=True)
    return group_poses(poses, order, sigmas, threshold, classes)[0]
