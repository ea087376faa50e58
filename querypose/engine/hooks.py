"""Training hooks: averaged weights, kept checkpoints, and an end on request."""

from __future__ import annotations

import json
import logging
import signal
import threading
from pathlib import Path
from types import FrameType

import torch
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from torch.optim.swa_utils import AveragedModel

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.files import replace_file
from querypose.engine.consensus import any_process


class WeightAverager(HookBase):
    """Follows the model's weights after every iteration.

    Args:
        averaged: the moving average.
    """

    def __init__(self, averaged: AveragedModel) -> None:
        self.averaged = averaged

    def after_step(self) -> None:
        """Moves the average towards the model."""
        model = self.trainer.model
        self.averaged.update_parameters(getattr(model, "module", model))


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's, which also knows the checkpoints of the run that it resumes."""

    def before_train(self) -> None:
        """Counts the files of earlier iterations among those to be thinned out."""
        super().before_train()
        names = Path(self.checkpointer.save_dir).glob(f"{self.file_prefix}_{'[0-9]' * 7}.pth")
        paths = [path for path in sorted(names) if int(path.stem[-7:]) < self.trainer.start_iter]
        if self.max_to_keep is not None:
            # A run that was killed between a save and its thinning out leaves one too many.
            for path in paths[: -self.max_to_keep]:
                path.unlink()
            paths = paths[-self.max_to_keep :]
        self.recent_checkpoints = [str(path) for path in paths]


class WeightsCheckpointer(QueryPoseCheckpointer):
    """Saves files that no training resumes from."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Leaves the pointer to the newest checkpoint alone."""


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's, with a memory: a resumed run keeps the best weights of the run before."""

    @property
    def _record(self) -> Path:
        return Path(self._checkpointer.save_dir, f"{self._file_prefix}.json")

    def before_train(self) -> None:
        """Reads the best score so far, unless the training starts anew."""
        if self.trainer.start_iter and self._record.is_file():
            best = json.loads(self._record.read_text())
            self._update_best(best[self._val_metric], best["iteration"])

    def _best_checking(self) -> None:
        previous = self.best_iter
        super()._best_checking()
        if self.best_iter != previous:
            best = {self._val_metric: float(self.best_metric), "iteration": self.best_iter}
            replace_file(self._record, lambda file: file.write(json.dumps(best).encode()))


class StopOnSigterm(HookBase):
    """Ends the training after the current iteration, with a checkpoint, when asked to.

    Schedulers send SIGTERM before they take a machine away. All processes stop together, whichever
    of them got the signal.

    Args:
        checkpointer: saves the training's state.
        device: of the model.
    """

    def __init__(self, checkpointer: QueryPoseCheckpointer, device: torch.device) -> None:
        self.checkpointer = checkpointer
        self.device = device
        self.requested = False

    def before_train(self) -> None:
        """Catches the signal; Python allows that in the main thread alone."""
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._previous = signal.signal(signal.SIGTERM, self._request)

    def after_step(self) -> None:
        """Saves and exits where the signal came.

        Raises:
            SystemExit: with code 0.
        """
        if not any_process(self.requested, self.device):
            return
        iteration = self.trainer.iter
        self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        comm.synchronize()
        logging.getLogger(__name__).warning(
            "Stopped by SIGTERM after iteration %d; continue with --resume.", iteration
        )
        raise SystemExit(0)

    def after_train(self) -> None:
        """Gives the signal back."""
        if self._in_main_thread:
            signal.signal(signal.SIGTERM, self._previous)

    def _request(self, _: int, __: FrameType | None) -> None:
        self.requested = True
