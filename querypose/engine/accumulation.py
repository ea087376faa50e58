"""Gradient accumulation: weights that make several small batches train as one large batch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from torch import nn

from querypose.engine.bad_batch import Batch
from querypose.modeling.pose_model import PoseModel

Share = Callable[[str], float]

_STAGE_NUMBER = re.compile(r"_\d+$")


def loss_shares(model: nn.Module, batches: Sequence[Batch]) -> list[Share]:
    """The factors to multiply every batch's losses by before summing them.

    The mean over several batches is not the mean of their means: in a loss that is a mean over
    people, a batch with more people weighs more. Collective: every rank must call it.

    Args:
        model: the model that computes the losses, possibly wrapped for several processes. The
            losses of a model that is not a :class:`PoseModel` are averaged.
        batches: this process's batches of one iteration, all of the same size.

    Returns:
        For each batch, a function from a loss's name to its factor.
    """
    equal_share = 1 / len(batches)
    model = getattr(model, "module", model)
    if len(batches) == 1 or not isinstance(model, PoseModel):
        return [lambda _: equal_share] * len(batches)
    whole = model.loss_normalizers(list(itertools.chain.from_iterable(batches)))

    def share_of(batch: Batch) -> Share:
        own = model.loss_normalizers(batch)
        shares = {name: float(own[name] / whole[name]) for name in whole}
        return lambda name: shares.get(_STAGE_NUMBER.sub("", name), equal_share)

    return [share_of(batch) for batch in batches]
