"""One training iteration: batches in, one optimizer step out."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from querypose.engine.accumulation import Share, loss_shares
from querypose.engine.bad_batch import Batch, save_bad_batch
from querypose.engine.consensus import any_process
from querypose.engine.optimizer import parameter_names, resumed_state
from querypose.engine.seeding import mixed_seed
from querypose.engine.train_loader import ResumableTrainLoader
from querypose.precision import PRECISIONS, autocast, grad_scaler

# A gradient scaler starts at 2**16 and halves its scale at every infinity. Below this scale, it
# would skip every further step without a word.
_SMALLEST_SCALE = 2.0**-14


class _BadNumbersError(Exception):
    """NaN or infinity in some process; the message is this process's fault, or empty."""


class QueryPoseTrainStep(SimpleTrainer):
    """Detectron2's training step with gradient accumulation, mixed precision and NaN checks.

    If a loss, a matching cost or the gradient is NaN or infinite in any process, the iteration
    does not change the model or the optimizer. Random numbers of the forward pass depend on the
    seed, the iteration and the rank only.

    Args:
        model: returns a dictionary of losses.
        data_loader: yields batches.
        optimizer: steps once per iteration.
        precision: one of :data:`querypose.precision.PRECISIONS`.
        accumulate_steps: batches per iteration, which train as one large batch.
        max_skipped_batches: iterations with NaN or infinity that may be skipped.
        output_dir: folder for the batches of such iterations.
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        data_loader: ResumableTrainLoader,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        accumulate_steps: int,
        max_skipped_batches: int,
        output_dir: str,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.precision = precision
        self.accumulate_steps = accumulate_steps
        self.max_skipped_batches = max_skipped_batches
        self.output_dir = output_dir
        self.num_skipped = 0
        self.device = next(model.parameters()).device
        self.grad_scaler = grad_scaler(self.device, precision)

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        data_loader: ResumableTrainLoader,
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, Any]:
        """Reads ``SOLVER.{AMP, ACCUMULATE_STEPS, MAX_SKIPPED_BATCHES}`` and ``OUTPUT_DIR``.

        Raises:
            ValueError: a value is not allowed.
        """
        amp, steps = cfg.SOLVER.AMP, cfg.SOLVER.ACCUMULATE_STEPS
        if amp.PRECISION not in PRECISIONS:
            raise ValueError(
                f"SOLVER.AMP.PRECISION is one of {list(PRECISIONS)}, not {amp.PRECISION!r}."
            )
        if steps < 1:
            raise ValueError(f"SOLVER.ACCUMULATE_STEPS must be at least 1, got {steps}.")
        return {
            "model": model,
            "data_loader": data_loader,
            "optimizer": optimizer,
            "precision": amp.PRECISION if amp.ENABLED else "fp32",
            "accumulate_steps": steps,
            "max_skipped_batches": cfg.SOLVER.MAX_SKIPPED_BATCHES,
            "output_dir": cfg.OUTPUT_DIR,
        }

    def run_step(self) -> None:
        """Runs one iteration.

        Raises:
            FloatingPointError: a number is NaN or infinite, and no more iterations may be skipped;
                the message names the number, the iteration and the images.
        """
        start = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self.accumulate_steps)]
        data_time = time.perf_counter() - start
        torch.manual_seed(mixed_seed(self.data_loader.seed, self.iter, comm.get_rank()))
        may_skip = self.num_skipped < self.max_skipped_batches
        buffers = [buffer.clone() for buffer in self.model.buffers()] if may_skip else []
        self.optimizer.zero_grad()
        try:
            losses = self._accumulate_gradients(batches)
        except _BadNumbersError as error:
            self._report(str(error), batches)
            # Undo what the bad numbers did to the statistics of batch norms.
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self.optimizer.zero_grad()
            return
        self.after_backward()
        self._write_metrics(losses, data_time)
        # The optimizer clips the gradients in its step.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        if self.grad_scaler.is_enabled() and self.grad_scaler.get_scale() < _SMALLEST_SCALE:
            self._report("The gradient became NaN or infinite at any loss scale.", batches)

    def _accumulate_gradients(self, batches: Sequence[Batch]) -> dict[str, float | Tensor]:
        """Sums gradients over the batches; returns the losses of the one large batch."""
        totals: dict[str, float | Tensor] = {}
        shares = loss_shares(self.model, batches)
        for index, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            with self._gradient_reduction(enabled=index == len(batches) - 1):
                losses = self._losses(batch, share)
                self.grad_scaler.scale(sum(losses.values())).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach()
        # A gradient scaler checks this itself and lowers its scale.
        if not self.grad_scaler.is_enabled() and not math.isfinite(self._gradient_norm()):
            raise _BadNumbersError("The gradient became NaN or infinite.")
        return totals

    def _gradient_reduction(self, *, enabled: bool) -> contextlib.AbstractContextManager[None]:
        """Processes exchange gradients once per iteration, after the last batch."""
        if isinstance(self.model, DistributedDataParallel) and not enabled:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _losses(self, batch: Batch, share: Share) -> dict[str, Tensor]:
        fault, losses = "", {}
        try:
            with autocast(self.device, self.precision):
                losses = self.model(batch)
        except FloatingPointError as error:
            fault = str(error)
        losses = {name: loss * share(name) for name, loss in losses.items()}
        if not fault and not torch.isfinite(sum(losses.values())):
            terms = [name for name, loss in losses.items() if not torch.isfinite(loss)]
            fault = f"{', '.join(terms)} became NaN or infinite."
        # Decided before the backward pass, in which processes wait for each other.
        if any_process(bool(fault), self.device):
            raise _BadNumbersError(fault)
        return losses

    def _gradient_norm(self) -> float:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return float(nn.utils.clip_grad_norm_(parameters, math.inf))

    def _report(self, fault: str, batches: Sequence[Batch]) -> None:
        """Counts a skipped iteration and logs a warning, or ends the training."""
        report = ""
        if fault:
            path = save_bad_batch(
                self.output_dir,
                iteration=self.iter,
                fault=fault,
                batches=batches,
                model=getattr(self.model, "module", self.model),
            )
            files = [sample.get("file_name", "unnamed") for batch in batches for sample in batch]
            report = f"{fault} Images: {', '.join(files)}. Saved for a replay: {path}."
        reports = " ".join(filter(None, comm.all_gather(report)))
        message = f"Iteration {self.iter}: {reports}"
        if self.num_skipped >= self.max_skipped_batches:
            raise FloatingPointError(
                f"{message} Check these images' annotations, lower SOLVER.BASE_LR, or let "
                "SOLVER.MAX_SKIPPED_BATCHES pass over such batches."
            ) from None
        self.num_skipped += 1
        get_event_storage().put_scalar("skipped_batches", self.num_skipped, smoothing_hint=False)
        logging.getLogger(__name__).warning(
            "%s Skipped (%d of at most %d).", message, self.num_skipped, self.max_skipped_batches
        )

    def release_data_loader(self) -> None:
        """Ends the iterator over batches and its worker processes."""
        self._data_loader_iter_obj = None

    def state_dict(self) -> dict[str, Any]:
        """Adds parameter names, gradient scaler, data position and number of skipped batches."""
        return super().state_dict() | {
            "parameter_names": parameter_names(self.optimizer, self.model),
            "grad_scaler": self.grad_scaler.state_dict(),
            "data_loader": self.data_loader.state_dict(),
            "num_skipped": self.num_skipped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state, but keeps the optimizer's own hyperparameters.

        Raises:
            ValueError: the state belongs to another model.
        """
        optimizer = resumed_state(
            self.optimizer,
            self.model,
            state_dict["optimizer"],
            state_dict.get("parameter_names"),
        )
        super().load_state_dict(state_dict | {"optimizer": optimizer})
        # Empty if the checkpoint was not trained in fp16: the scale then starts anew.
        if state_dict["grad_scaler"]:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.data_loader.load_state_dict(state_dict["data_loader"])
        self.num_skipped = state_dict["num_skipped"]
