"""Decisions that the processes of a distributed training make together."""

from __future__ import annotations

import torch
from detectron2.utils import comm


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in at least one process. Collective: every rank must call it.

    Args:
        flag: this process's flag.
        device: the model's device, on which the backend can sum tensors.
    """
    if comm.get_world_size() == 1:
        return flag
    votes = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(votes)
    return bool(votes.item())
