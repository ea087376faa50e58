"""What the processes of a distributed training decide together."""

from __future__ import annotations

import torch
from detectron2.utils import comm


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in at least one process; all of them must ask at the same point.

    Args:
        flag: this process's answer.
        device: of the model, where the backend can add numbers up.
    """
    if comm.get_world_size() == 1:
        return flag
    votes = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(votes)
    return bool(votes.item())
