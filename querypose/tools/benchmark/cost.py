"""Parameters and multiply-adds of a model, counted while it runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """What a model costs.

    Attributes:
        parameters: of the whole model.
        multiply_adds: of all convolutions and matrix products of a forward pass.
    """

    parameters: int
    multiply_adds: float


@torch.no_grad()
def count_cost(model: nn.Module, inputs: list[dict[str, Any]]) -> Cost:
    """Counts what a model computes of its inputs; it cannot be trained afterwards."""
    # The counter follows gradients, which no_grad leaves half set for views of parameters.
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # PyTorch counts a multiplication and an addition as two.
    return Cost(parameters, counter.get_total_flops() / 2)
