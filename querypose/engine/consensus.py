"""Decisions that several processes make together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from detectron2.utils import comm

Value = TypeVar("Value")

# Of a collection, one process may finish long before another.
_PATIENCE = timedelta(days=30)


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


def from_main_process(make: Callable[[], Value]) -> Value:
    """What ``make`` returns in the main process. Collective: every rank must call it.

    Args:
        make: called in the main process alone; what it returns can be pickled.

    Raises:
        OSError, ValueError: the main process's, in every process.
    """
    answer: tuple[Value | None, Exception | None] = (None, None)
    if comm.is_main_process():
        try:
            answer = (make(), None)
        except (OSError, ValueError) as error:
            answer = (None, error)
    value, failure = comm.all_gather(answer)[0]
    if failure is not None:
        raise failure
    return value


def wait_for_all() -> None:
    """Waits for every process, for days if need be. Collective: every rank must call it.

    Detectron2's ``synchronize`` gives up after half an hour.
    """
    if comm.get_world_size() > 1:
        patient = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        torch.distributed.barrier(group=patient)
