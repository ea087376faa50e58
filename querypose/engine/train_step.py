"""One training iteration: batches in, one optimiser step out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

_PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class QueryPoseTrainStep(SimpleTrainer):
    """Detectron2's training step with gradient accumulation and mixed precision on any device.

    Args:
        model: returns a dictionary of losses.
        data_loader: yields batches.
        optimizer: steps once per iteration.
        precision: the type that autocast computes in; None leaves it off.
        accumulate_steps: batches per iteration; their losses are averaged.
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Sequence[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        precision: torch.dtype | None,
        accumulate_steps: int,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.precision = precision
        self.accumulate_steps = accumulate_steps
        self.device_type = next(model.parameters()).device.type
        # Only half precision underflows; elsewhere the scaler passes everything through.
        self.grad_scaler = torch.amp.GradScaler(
            self.device_type, enabled=precision is torch.float16
        )

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        data_loader: Iterable[Sequence[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, Any]:
        """Reads ``SOLVER.AMP`` and ``SOLVER.ACCUMULATE_STEPS``.

        Raises:
            ValueError: a value is not one of those allowed.
        """
        amp, steps = cfg.SOLVER.AMP, cfg.SOLVER.ACCUMULATE_STEPS
        if amp.PRECISION not in _PRECISIONS:
            raise ValueError(
                f"SOLVER.AMP.PRECISION is one of {sorted(_PRECISIONS)}, not {amp.PRECISION!r}."
            )
        if steps < 1:
            raise ValueError(f"SOLVER.ACCUMULATE_STEPS must be at least 1, got {steps}.")
        return {
            "model": model,
            "data_loader": data_loader,
            "optimizer": optimizer,
            "precision": _PRECISIONS[amp.PRECISION] if amp.ENABLED else None,
            "accumulate_steps": steps,
        }

    def run_step(self) -> None:
        """Runs one iteration.

        Raises:
            FloatingPointError: a loss is NaN or infinite; it names the term and the pictures.
        """
        self.optimizer.zero_grad()
        totals: dict[str, Tensor] = {}
        data_time = 0.0
        for index in range(self.accumulate_steps):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            last = index == self.accumulate_steps - 1
            for name, loss in self._backward(batch, synchronise=last).items():
                totals[name] = totals.get(name, 0) + loss
        self.after_backward()
        self._write_metrics(totals, data_time)
        # Fused optimisers would unscale after clipping.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _backward(
        self, batch: Sequence[dict[str, Any]], *, synchronise: bool
    ) -> dict[str, Tensor]:
        """Adds one batch's gradients; returns its detached share of the losses."""
        distributed = isinstance(self.model, DistributedDataParallel)
        wait = contextlib.nullcontext() if synchronise or not distributed else self.model.no_sync()
        with wait:
            with torch.autocast(
                self.device_type, dtype=self.precision, enabled=self.precision is not None
            ):
                losses = self.model(batch)
            losses = {name: loss / self.accumulate_steps for name, loss in losses.items()}
            total = sum(losses.values())
            if not torch.isfinite(total):
                raise FloatingPointError(self._describe(losses, batch))
            self.grad_scaler.scale(total).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _describe(self, losses: dict[str, Tensor], batch: Sequence[dict[str, Any]]) -> str:
        terms = [name for name, loss in losses.items() if not torch.isfinite(loss)]
        files = [given.get("file_name", "unnamed picture") for given in batch]
        return (
            f"Iteration {self.iter}: {', '.join(terms)} became NaN or infinite on {files}; "
            "look at these pictures' annotations or lower SOLVER.BASE_LR."
        )

    def state_dict(self) -> dict[str, Any]:
        """Adds the gradient scaler's state to Detectron2's."""
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
