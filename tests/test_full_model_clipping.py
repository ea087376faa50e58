from __future__ import annotations

import logging

import pytest
import torch
from detectron2.solver import build_optimizer
from torch import nn

from querypose.full_model_clipping import teach_full_model_clipping

LR = 0.1


@pytest.fixture
def model() -> nn.Module:
    """Two parameters with gradients of norm 3 and 4 each, hence 5 together."""
    model = nn.ParameterList([torch.zeros(1), torch.zeros(1)])
    for parameter, gradient in zip(model, (3.0, 4.0), strict=True):
        parameter.grad = torch.full_like(parameter, gradient)
    return model


def _options(clip_type: str) -> dict[str, object]:
    return {
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": clip_type,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 2.0,
        "SOLVER.BASE_LR": LR,
        "SOLVER.WEIGHT_DECAY": 0.0,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    }


@pytest.mark.parametrize(("clip_type", "steps"), [("full_model", [1.2, 1.6]), ("norm", [2.0, 2.0])])
def test_detectron2s_own_optimizer_clips(clip_type, steps, tiny_cfg, model):
    """One norm for all gradients; Detectron2's own types stay per parameter."""
    teach_full_model_clipping()  # Once more is as good as once.
    optimizer = build_optimizer(tiny_cfg(_options(clip_type)), model)
    optimizer.step()
    torch.testing.assert_close(torch.cat(list(model)), -LR * torch.tensor(steps))
    assert isinstance(optimizer, torch.optim.SGD)


def test_it_says_that_its_optimizer_is_another(tiny_cfg, model, caplog):
    with caplog.at_level(logging.WARNING, logger="querypose"):
        build_optimizer(tiny_cfg(_options("full_model")), model)
    assert any("SOLVER.OPTIMIZER is AdamW" in message for message in caplog.messages)
