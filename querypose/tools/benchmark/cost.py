"""Parameters and multiply-adds of a model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """Size and computation of a model.

    Attributes:
        parameters: of the whole model.
        multiply_adds: of all convolutions and matrix products in a forward pass.
    """

    parameters: int
    multiply_adds: float


@torch.no_grad()
def count_cost(model: nn.Module, inputs: list[dict[str, Any]]) -> Cost:
    """Counts in a forward pass; the model cannot be trained afterwards."""
    # Under no_grad, views of parameters that require gradients confuse the counter.
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    # PyTorch counts a multiply-add as two operations.
    return Cost(parameters, counter.get_total_flops() / 2)
