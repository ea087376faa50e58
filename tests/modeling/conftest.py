"""Fixtures for the models' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def randomize() -> Callable[..., nn.Module]:
    """Draws every parameter anew, biases and normalizations included, so that each one counts."""

    def fill(module: nn.Module, std: float = 0.3, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(std * torch.randn(parameter.shape))
        return module

    return fill
