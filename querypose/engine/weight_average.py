"""The moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    average = _warmed_up(ema.DECAY) if ema.WARM_UP else get_ema_multi_avg_fn(ema.DECAY)
    model = getattr(model, "module", model)
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def _warmed_up(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """An average that forgets the beginning of a training before its decay would."""

    def update(averaged: Any, current: Any, num_averaged: Tensor | int) -> None:
        count = int(num_averaged)
        reached = min(decay, (1 + count) / (10 + count))
        get_ema_multi_avg_fn(reached)(averaged, current, num_averaged)

    return update
