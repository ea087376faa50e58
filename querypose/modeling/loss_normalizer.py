"""The normalizer of losses in distributed training."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor


def mean_over_processes(count: Tensor) -> Tensor:
    """The mean count per process, at least 1; collective: every rank must call it.

    DDP averages gradients. With losses divided by this mean, several processes train as one would.

    Args:
        count: number of terms of a loss in this process, a scalar on the device of the model.
    """
    count = count.float()
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(count)
    return (count / comm.get_world_size()).clamp(min=1)
