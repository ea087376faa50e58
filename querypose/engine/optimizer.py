"""Builds the optimizer, and restores its state when a training is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, build
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

State = dict[str, Any]
"""The ``state_dict`` of an optimizer."""


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """Builds the optimizer that ``SOLVER`` describes.

    The learning rate of the flow is ``FLOW_MULTIPLIER`` times the base rate, that of the backbone
    ``BACKBONE_MULTIPLIER`` times. Gradients are clipped per parameter, as in Detectron2, or with
    ``CLIP_GRADIENTS.FULL_MODEL`` by the norm of all gradients together.

    Raises:
        ValueError: ``SOLVER.OPTIMIZER`` is unknown, or ``CLIP_TYPE`` does not fit ``FULL_MODEL``.
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
        optimizer_class, options = getattr(torch.optim, solver.OPTIMIZER), {}
    elif solver.OPTIMIZER == "SGD":
        optimizer_class = torch.optim.SGD
        options = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    else:
        raise ValueError(f"SOLVER.OPTIMIZER must be Adam, AdamW or SGD, got {solver.OPTIMIZER!r}.")

    options["lr"] = solver.BASE_LR
    clip = solver.CLIP_GRADIENTS
    if not (clip.ENABLED and clip.FULL_MODEL):
        return build.maybe_add_gradient_clipping(cfg, optimizer_class)(parameters, **options)
    if clip.CLIP_TYPE != "norm":
        raise ValueError(
            "SOLVER.CLIP_GRADIENTS.FULL_MODEL clips by the norm of all gradients: set "
            f'SOLVER.CLIP_GRADIENTS.CLIP_TYPE to "norm", not {clip.CLIP_TYPE!r}.'
        )
    return build_clipping_optimizer(
        optimizer_class,
        parameters,
        max_norm=clip.CLIP_VALUE,
        norm_type=clip.NORM_TYPE,
        **options,
    )


def build_clipping_optimizer(
    kind: type[Optimizer],
    params: Iterable[Any],
    *,
    max_norm: float,
    norm_type: float = 2.0,
    **options: Any,
) -> Optimizer:
    """Builds an optimizer that clips the norm of all gradients together before its step.

    A gradient scaler has unscaled them by then.

    Args:
        kind: the optimizer's class.
        params: parameters or groups of them.
        max_norm: gradients of a larger norm are scaled down to it.
        norm_type: the p of the p-norm.
        options: further arguments of the class.
    """

    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
        return kind.step(self, closure)

    clipping = type(f"{kind.__name__}WithFullModelClipping", (kind,), {"step": step})
    return clipping(params, **options)


def parameter_names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """The names of the trained parameters, in the order of the optimizer's state."""
    model = getattr(model, "module", model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def resumed_state(
    optimizer: Optimizer,
    model: nn.Module,
    saved: State,
    saved_names: Sequence[str] | None,
) -> State:
    """Combines a checkpoint's state of every parameter with the hyperparameters of ``optimizer``.

    So learning rates, decays and momenta follow the config. Parameter groups depend on them, too,
    so states are matched to parameters by name. A parameter that was not trained before starts
    without a state.

    Args:
        optimizer: built from the config.
        model: the model that it trains, possibly wrapped for several processes.
        saved: the checkpoint's optimizer state.
        saved_names: the checkpoint's :func:`parameter_names`; None for old checkpoints without
            names, whose groups must equal those of ``optimizer``.

    Raises:
        ValueError: the state belongs to other parameters.
    """
    names, groups = parameter_names(optimizer, model), optimizer.state_dict()["param_groups"]
    if saved_names is None:
        sizes, saved_sizes = (
            [len(group["params"]) for group in each] for each in (groups, saved["param_groups"])
        )
        if sizes != saved_sizes:
            raise ValueError(
                "The checkpoint's optimizer has other groups of parameters than the config's: "
                "resume with the multipliers and decays (SOLVER) that it was trained with."
            )
        saved_names = names
    parameters = dict(getattr(model, "module", model).named_parameters())
    states = {name: saved["state"].get(index) for index, name in enumerate(saved_names)}
    for name in names:
        for value in (states.get(name) or {}).values():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameters[name].shape:
                raise ValueError(
                    f"The checkpoint to resume from was trained with a {name} of another shape: "
                    "resume with its config, or start a new training from its weights "
                    "(MODEL.WEIGHTS, another OUTPUT_DIR, no --resume)."
                )
    kept = {index: states[name] for index, name in enumerate(names) if states.get(name)}
    return {"state": kept, "param_groups": groups}


def restate_learning_rates(optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Sets every group's learning rate to that of a resumed schedule.

    Detectron2's scheduler restores the base rates of the checkpoint; this replaces them by those
    of the config.
    """
    if isinstance(scheduler, LRMultiplier):
        scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        rates = scheduler.get_lr()
    else:
        rates = scheduler.get_last_lr()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
