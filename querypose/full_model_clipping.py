"""Detectron2's own trainer, taught the clip type that the method's configs name."""

from __future__ import annotations

import functools
import itertools
import logging

import torch
from detectron2.config import CfgNode
from detectron2.solver import build

_Optimizer = torch.optim.Optimizer


def teach_full_model_clipping() -> None:
    """Lets Detectron2's ``build_optimizer`` read ``CLIP_TYPE: "full_model"``; it would refuse it.

    So ``DefaultTrainer`` runs with these configs as any of Detectron2's. Nothing else about
    Detectron2 changes: all other clip types go to its own function. Teaching it again does nothing.
    """
    original = build.maybe_add_gradient_clipping
    if getattr(original, "knows_full_model", False):
        return

    @functools.wraps(original)
    def maybe_add_gradient_clipping(
        cfg: CfgNode, optimizer: _Optimizer | type[_Optimizer]
    ) -> _Optimizer | type[_Optimizer]:
        clip = cfg.SOLVER.CLIP_GRADIENTS
        if not clip.ENABLED or clip.CLIP_TYPE != "full_model":
            return original(cfg, optimizer)
        if isinstance(optimizer, type):
            return _with_full_model_clipping(optimizer, clip.CLIP_VALUE, clip.NORM_TYPE)
        _warn_of_another_optimizer(cfg, type(optimizer).__name__)
        # What Detectron2's function does with an instance.
        optimizer.__class__ = _with_full_model_clipping(
            type(optimizer), clip.CLIP_VALUE, clip.NORM_TYPE
        )
        return optimizer

    maybe_add_gradient_clipping.knows_full_model = True
    build.maybe_add_gradient_clipping = maybe_add_gradient_clipping


def _with_full_model_clipping(
    kind: type[_Optimizer], max_norm: float, norm_type: float
) -> type[_Optimizer]:
    """A subclass that limits the norm of all gradients together before its step.

    Gradient scalers have unscaled by then.
    """

    def step(self: _Optimizer, closure: object = None) -> object:
        parameters = itertools.chain.from_iterable(group["params"] for group in self.param_groups)
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
        return kind.step(self, closure)

    return type(f"{kind.__name__}WithFullModelClipping", (kind,), {"step": step})


def _warn_of_another_optimizer(cfg: CfgNode, given: str) -> None:
    wanted = cfg.SOLVER.get("OPTIMIZER", given)
    if wanted != given:
        logging.getLogger(__name__).warning(
            "SOLVER.OPTIMIZER is %s, but Detectron2's own build_optimizer makes %s: have your "
            "trainer's build_optimizer return querypose.engine.optimizer.build_optimizer(cfg, "
            "model).",
            wanted,
            given,
        )
