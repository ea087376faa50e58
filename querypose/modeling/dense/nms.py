"""Non-maximum suppression of poses."""

from __future__ import annotations

import torch
from torch import Tensor

from querypose.oks import pairwise_pose_oks


def oks_nms(poses: Tensor, scores: Tensor, sigmas: Tensor, threshold: float) -> Tensor:
    """Keeps, from the best pose down, those that resemble no kept one.

    Args:
        poses: (N, K, 2).
        scores: (N,).
        sigmas: (K,), OKS standard deviations.
        threshold: two poses resemble each other where their OKS, see
            :func:`querypose.oks.pairwise_pose_oks`, is above it.

    Returns:
        Indices of the kept poses, best first; of poses of one score, the earlier first.
    """
    resembles = (pairwise_pose_oks(poses, poses, sigmas) > threshold).cpu()
    suppressed = torch.zeros(len(poses), dtype=torch.bool)
    kept = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if not suppressed[index]:
            kept.append(index)
            suppressed |= resembles[index]
    return torch.tensor(kept, dtype=torch.long, device=poses.device)
