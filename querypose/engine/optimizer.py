"""AdamW with a learning rate per group, clipped over the whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build
from torch import nn
from torch.optim import Optimizer


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Builds the optimizer that ``SOLVER`` describes.

    The flow learns at ``FLOW_MULTIPLIER`` times the base rate, the backbone at
    ``BACKBONE_MULTIPLIER`` times. Gradients are clipped as Detectron2 does it, parameter by
    parameter, or with ``CLIP_GRADIENTS.FULL_MODEL`` all together, by their common norm.

    Raises:
        ValueError: ``SOLVER.OPTIMIZER`` is neither AdamW nor SGD.
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
    if solver.OPTIMIZER == "AdamW":
        optimizer_class, options = torch.optim.AdamW, {}
    elif solver.OPTIMIZER == "SGD":
        optimizer_class = torch.optim.SGD
        options = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    else:
        raise ValueError(f"SOLVER.OPTIMIZER is AdamW or SGD, not {solver.OPTIMIZER!r}.")

    clip = solver.CLIP_GRADIENTS
    if clip.ENABLED and clip.FULL_MODEL:
        optimizer_class = _with_full_model_clipping(optimizer_class, clip)
    else:
        optimizer_class = build.maybe_add_gradient_clipping(cfg, optimizer_class)
    return optimizer_class(parameters, lr=solver.BASE_LR, **options)


def _with_full_model_clipping(kind: type[Optimizer], clip: CfgNode) -> type[Optimizer]:
    """A subclass that limits the norm of all gradients together before its step.

    Gradient scalers have unscaled by then.
    """
    if clip.CLIP_TYPE != "norm":
        raise ValueError(
            "SOLVER.CLIP_GRADIENTS.FULL_MODEL clips by the norm of all gradients: set CLIP_TYPE "
            f'"norm" beside it, not {clip.CLIP_TYPE!r}.'
        )

    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)
        return kind.step(self, closure)

    return type(f"{kind.__name__}WithFullModelClipping", (kind,), {"step": step})
