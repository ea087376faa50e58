"""What losses are divided by."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor


def mean_over_processes(count: Tensor) -> Tensor:
    """The mean of all processes' counts, at least 1; all of them must ask at the same point.

    DDP averages gradients: divided by it, several processes' losses train as one process's would.

    Args:
        count: of what a loss sums up, a scalar on the model's device.
    """
    count = count.float()
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(count)
    return (count / comm.get_world_size()).clamp(min=1)
