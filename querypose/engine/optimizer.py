"""Adam, AdamW or SGD with a learning rate per group, clipped over the whole model."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build
from torch import nn


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Builds the optimiser that ``SOLVER`` describes.

    The flow learns at ``FLOW_MULTIPLIER`` times the base rate, the backbone at
    ``BACKBONE_MULTIPLIER`` times. Detectron2's clip types work as ever; ``full_model`` limits the
    norm of all gradients together.

    Raises:
        ValueError: ``SOLVER.OPTIMIZER`` is none of Adam, AdamW and SGD.
    """
    solver = cfg.SOLVER

    def lr_factor(name: str) -> float:
        if ".flow." in name:
            return solver.FLOW_MULTIPLIER
        return solver.BACKBONE_MULTIPLIER if name.startswith("backbone.") else 1.0

    parameters = build.get_default_optimizer_params(
        getattr(model, "module", model),
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lr_factor,
    )
    options: dict[str, Any]
    if solver.OPTIMIZER in ("Adam", "AdamW"):
        optimizer_class, options = getattr(torch.optim, solver.OPTIMIZER), {"fused": solver.FUSED}
    elif solver.OPTIMIZER == "SGD":
        optimizer_class = torch.optim.SGD
        options = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    else:
        raise ValueError(f"SOLVER.OPTIMIZER is Adam, AdamW or SGD, not {solver.OPTIMIZER!r}.")

    # As the module's attribute: importing querypose taught it CLIP_TYPE "full_model".
    optimizer_class = build.maybe_add_gradient_clipping(cfg, optimizer_class)
    return optimizer_class(parameters, lr=solver.BASE_LR, **options)
