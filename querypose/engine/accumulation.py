"""What each of an iteration's batches counts, so that several small ones train as a large one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

from querypose.engine.bad_batch import Batch
from querypose.modeling.pose_model import PoseModel

Share = Callable[[str], float]

_STAGE_NUMBER = re.compile(r"_\d+$")


def loss_shares(model: nn.Module, batches: Sequence[Batch]) -> list[Share]:
    """By what to multiply every batch's losses before they are summed up.

    The mean over several batches is no mean of their means: a batch with more people counts for
    more in a loss that is a mean over people. Collective: every rank must call it.

    Args:
        model: whose losses they are; possibly wrapped for several processes. Losses of a model that
            is no :class:`PoseModel` are averaged.
        batches: of this process, all of one size.

    Returns:
        Per batch a function of a loss's name.
    """
    plain = 1 / len(batches)
    model = getattr(model, "module", model)
    if len(batches) == 1 or not isinstance(model, PoseModel):
        return [lambda _: plain] * len(batches)
    whole = model.loss_normalizers([given for batch in batches for given in batch])

    def share_of(batch: Batch) -> Share:
        own = model.loss_normalizers(batch)
        shares = {name: float(own[name] / whole[name]) for name in whole}
        return lambda name: shares.get(_STAGE_NUMBER.sub("", name), plain)

    return [share_of(batch) for batch in batches]
