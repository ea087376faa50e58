"""Training hooks: averaged weights, checkpoints, and a stop on SIGTERM."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from torch.optim.swa_utils import AveragedModel

from querypose.atomic_files import replace_file
from querypose.checkpoint import QueryPoseCheckpointer
from querypose.engine.consensus import any_process


class WeightAverager(HookBase):
    """Updates a moving average of the model's weights after every iteration.

    Args:
        averaged: the moving average.
    """

    def __init__(self, averaged: AveragedModel) -> None:
        self.averaged = averaged

    def after_step(self) -> None:
        """Updates the average."""
        model = self.trainer.model
        self.averaged.update_parameters(getattr(model, "module", model))


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's hook, which also deletes old checkpoints of the run that it resumes."""

    def before_train(self) -> None:
        """Adds the files of earlier iterations to those that ``max_to_keep`` limits."""
        super().before_train()
        names = Path(self.checkpointer.save_dir).glob(f"{self.file_prefix}_{'[0-9]' * 7}.pth")
        paths = [path for path in sorted(names) if int(path.stem[-7:]) < self.trainer.start_iter]
        if self.max_to_keep is not None:
            # A run that was killed after a save, before the deletion, leaves one too many.
            for path in paths[: -self.max_to_keep]:
                path.unlink()
            paths = paths[-self.max_to_keep :]
        self.recent_checkpoints = [str(path) for path in paths]


class WeightsCheckpointer(QueryPoseCheckpointer):
    """Saves files that training does not resume from."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Does nothing: ``last_checkpoint`` keeps naming the file to resume from."""


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, with a file of the best score, which a resumed run starts from."""

    @property
    def _record(self) -> Path:
        return Path(self._checkpointer.save_dir, f"{self._file_prefix}.json")

    def before_train(self) -> None:
        """Reads the best score so far if the training is resumed."""
        if not self.trainer.start_iter:
            # That of another training in this folder.
            self._record.unlink(missing_ok=True)
        elif self._record.is_file():
            best = json.loads(self._record.read_text())
            if self._val_metric in best:
                self._update_best(best[self._val_metric], best["iteration"])
            else:
                logging.getLogger(__name__).warning(
                    "%s has no score of %s: the search for the best weights starts anew.",
                    self._record,
                    self._val_metric,
                )

    def _best_checking(self) -> None:
        previous = self.best_iter
        super()._best_checking()
        if self.best_iter != previous:
            best = {self._val_metric: float(self.best_metric), "iteration": self.best_iter}
            replace_file(self._record, lambda file: file.write(json.dumps(best).encode()))


class StopOnSigterm(HookBase):
    """Saves a checkpoint and ends the training after the iteration in which SIGTERM arrives.

    Schedulers send SIGTERM shortly before they take a machine away. All processes stop together,
    whichever of them got the signal. An evaluation takes longer than a scheduler waits: each
    process that gets the signal aborts it.

    Args:
        checkpointer: saves the training's state.
        device: the model's device.
    """

    def __init__(self, checkpointer: QueryPoseCheckpointer, device: torch.device) -> None:
        self.checkpointer = checkpointer
        self.device = device
        self.requested = False
        self._evaluating = False
        self._previous: Any = None

    def before_train(self) -> None:
        """Installs the signal handler; Python allows that in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._request)

    def release(self) -> None:
        """Restores the previous signal handler, after the last evaluation."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def after_step(self) -> None:
        """Saves and exits if the signal arrived in any process.

        Raises:
            SystemExit: with code 0.
        """
        last = self.trainer.iter + 1 >= self.trainer.max_iter  # An evaluation follows.
        if not last and any_process(self.requested, self.device):
            self._save()
            comm.synchronize()
            self._exit()

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """A context in which the signal ends the process at once.

        Raises:
            SystemExit: with code 0.
        """
        if any_process(self.requested, self.device):
            self._save()
            self._exit()
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    def _request(self, _: int, __: FrameType | None) -> None:
        self.requested = True
        if self._evaluating:
            self._evaluating = False
            # A worker process that the same signal ends would interrupt the save.
            previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._save()
            signal.signal(signal.SIGCHLD, previous)
            self._exit()

    def _save(self) -> None:
        iteration = self.trainer.iter
        if iteration < self.trainer.max_iter:  # Afterwards, the final checkpoint exists already.
            self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)

    def _exit(self) -> NoReturn:
        logging.getLogger(__name__).warning(
            "Stopped by SIGTERM after iteration %d; continue with --resume.", self.trainer.iter
        )
        raise SystemExit(0)
