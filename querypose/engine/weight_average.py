"""The moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def build_averaged_model(cfg: CfgNode, model: nn.Module) -> AveragedModel | None:
    """An exponential moving average of a model's parameters and buffers, by ``SOLVER.EMA``.

    Returns:
        None without ``SOLVER.EMA.ENABLED``.

    Raises:
        ValueError: ``SOLVER.EMA.DECAY`` is not in 0..1.
    """
    ema = cfg.SOLVER.EMA
    if not 0 <= ema.DECAY <= 1:
        raise ValueError(f"SOLVER.EMA.DECAY must be between 0 and 1, got {ema.DECAY}.")
    if not ema.ENABLED:
        return None
    model = getattr(model, "module", model)
    average = _exponential_average(ema.DECAY, warm_up=ema.WARM_UP)
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def _exponential_average(decay: float, *, warm_up: bool) -> Callable[[Any, Any, Any], None]:
    """An average that, with a warm-up, forgets the beginning before its decay would."""

    def update(averaged: Any, current: Any, num_averaged: Tensor | int) -> None:
        # PyTorch groups tensors by type. It would average indices, too, and round them down.
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)
            return
        count = int(num_averaged)
        reached = min(decay, (1 + count) / (10 + count)) if warm_up else decay
        get_ema_multi_avg_fn(reached)(averaged, current, num_averaged)

    return update
