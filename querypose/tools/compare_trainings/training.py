"""One training of a comparison, in a process of its own."""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer, set_up


class CurvePoint(NamedTuple):
    """An evaluation during a training.

    Attributes:
        num_images: seen before it.
        metrics: by Detectron2's names, such as ``keypoints/AP``, in percent; NaN if nobody was
            predicted.
    """

    num_images: int
    metrics: dict[str, float]


class Training(NamedTuple):
    """A config, trained from its ``MODEL.WEIGHTS`` on a number of images.

    Attributes:
        config_file: a file, or the name of a packaged config.
        seed: ``SEED`` of the training.
        num_images: to see, those of several epochs counted again.
        folder: its ``OUTPUT_DIR``.
        opts: config keys and values.
    """

    config_file: str
    seed: int
    num_images: int
    folder: Path
    opts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The config's name without folders."""
        return Path(self.config_file).stem

    def read_config(self) -> CfgNode:
        """The config with all options of this training.

        Raises:
            FileNotFoundError: the config does not exist.
            ValueError: an option is invalid.
        """
        cfg = read_config(self.config_file, list(self.opts))
        cfg.defrost()
        cfg.merge_from_list(self._own_opts(cfg))
        cfg.freeze()
        return cfg

    def run(self, num_threads: int) -> None:
        """Trains, from the last checkpoint in the folder if there is one.

        Args:
            num_threads: of the training process.

        Raises:
            RuntimeError: the training failed, or was stopped.
        """
        if self._is_finished():
            return
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_train, args=(self, num_threads))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"The training in {self.folder} failed: see its message above.")
        if not self._is_finished():
            raise RuntimeError(
                f"The training in {self.folder} was stopped: the same command goes on with it."
            )

    def _is_finished(self) -> bool:
        curve = self.curve()
        return bool(curve) and curve[-1].num_images >= self.num_images

    def curve(self) -> list[CurvePoint]:
        """The evaluations so far: of averaged weights where they are averaged."""
        cfg = self.read_config()
        prefix = "ema/" if cfg.SOLVER.EMA.ENABLED else ""
        if len(cfg.DATASETS.TEST) > 1:
            prefix += f"{cfg.DATASETS.TEST[0]}/"
        points = []
        for line in self._log():
            if f"{prefix}keypoints/AP" not in line:
                continue
            iterations, period = line["iteration"], cfg.TEST.EVAL_PERIOD
            # Periodic evaluations carry the number of the iteration before, the last one does not.
            if period and (iterations + 1) % period == 0 and iterations != cfg.SOLVER.MAX_ITER:
                iterations += 1
            metrics = {
                name.removeprefix(prefix): value
                for name, value in line.items()
                if name.startswith((f"{prefix}keypoints/", f"{prefix}bbox/"))
            }
            points.append(CurvePoint(iterations * images_per_iteration(cfg), metrics))
        return points

    def images_per_second(self) -> float:
        """Of the median iteration; NaN if there were too few to be timed."""
        times = [line["time"] for line in self._log() if "time" in line]
        return images_per_iteration(self.read_config()) / median(times or [math.nan])

    def results_file(self) -> Path:
        """The results of the last evaluation on the first test set, in COCO's format."""
        cfg = self.read_config()
        folder = Path(self.folder, "ema") if cfg.SOLVER.EMA.ENABLED else self.folder
        return Path(folder, "inference", cfg.DATASETS.TEST[0], "coco_instances_results.json")

    def _own_opts(self, cfg: CfgNode) -> list[Any]:
        iterations = math.ceil(self.num_images / images_per_iteration(cfg))
        return ["OUTPUT_DIR", str(self.folder), "SEED", self.seed, "SOLVER.MAX_ITER", iterations]

    def _log(self) -> list[dict[str, Any]]:
        file = self.folder / "metrics.json"
        if not file.is_file():
            return []
        return [json.loads(line) for line in file.read_text().splitlines()]


def _train(training: Training, num_threads: int) -> None:
    """Trains in a new process, as the command for one training does."""
    torch.set_num_threads(num_threads)
    cfg = training.read_config()
    try:
        set_up(cfg)
        trainer = QueryPoseTrainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
    except (OSError, FloatingPointError, ValueError) as error:
        sys.exit(f"{training.folder}: {error}")


def images_per_iteration(cfg: CfgNode) -> int:
    """Images that the processes see together before a step of the optimizer."""
    return cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.ACCUMULATE_STEPS
