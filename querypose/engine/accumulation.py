"""What each of an iteration's batches counts, so that several small ones train as a large one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.utils import comm
from torch import nn

from querypose.engine.bad_batch import Batch
from querypose.modeling.criterion import QueryPoseCriterion

Share = Callable[[str], float]


class LossShares:
    """By what to multiply every batch's losses before they are summed up.

    QueryPose's losses are means over people. The mean over several batches is no mean of their
    means: a batch with more people counts for more. Losses of another kind, and other models', are
    averaged.

    Args:
        model: whose losses they are; possibly wrapped for several processes.
    """

    def __init__(self, model: nn.Module) -> None:
        criterion = getattr(getattr(model, "module", model), "criterion", None)
        known = isinstance(criterion, QueryPoseCriterion)
        self._people_losses = tuple(criterion.weights) if known else ()

    def __call__(self, batches: Sequence[Batch], device: torch.device) -> list[Share]:
        """Per batch a function of the loss's name; all processes must ask at the same point.

        Args:
            batches: of this process, all of one size.
            device: of the model, where the backend can add numbers up.
        """
        plain = 1 / len(batches)
        if len(batches) == 1 or not self._people_losses:
            return [lambda _: plain] * len(batches)
        by_people = _shares_of_people(batches, device)
        return [
            lambda name, share=share: share if self._is_mean_over_people(name) else plain
            for share in by_people
        ]

    def _is_mean_over_people(self, name: str) -> bool:
        # Every picture has equally many denoising queries.
        return name.startswith(self._people_losses) and "_denoising" not in name


def _shares_of_people(batches: Sequence[Batch], device: torch.device) -> list[float]:
    """What part of all batches' people each batch has, where one without any counts as one.

    So does the criterion's normaliser, which the shares replace by that of the large batch.
    """
    people = [sum(len(given["instances"]) for given in batch) for batch in batches]
    counts = torch.tensor(people, dtype=torch.float32, device=device)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(counts)
        counts /= comm.get_world_size()
    return (counts.clamp(min=1) / counts.sum().clamp(min=1)).tolist()
