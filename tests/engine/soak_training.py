"""Trains on two processes, one of which often sees nobody; test_soak.py starts and disturbs it.

    soak_training.py FOLDER OUTPUT NUM_ITERATIONS NUM_WORKERS [ITERATION_OF_A_NAN]

``OUTPUT/memory_RANK.txt`` gets a line with the peak of resident megabytes every 50 iterations.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

import torch
from detectron2.engine import HookBase, default_setup
from detectron2.utils import comm

from querypose.config import read_config
from querypose.data import register_coco_keypoints
from querypose.engine import QueryPoseTrainer, launch
from querypose.skeleton import COCO_SKELETON


class NanGradient(HookBase):
    """Of the second process, in one iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train(self) -> None:
        next(self.trainer.model.parameters()).register_hook(self._break)

    def _break(self, gradient: torch.Tensor) -> torch.Tensor:
        broken = self.trainer.iter == self.iteration and comm.get_rank() == 1
        return gradient * float("nan") if broken else gradient


class MemoryLog(HookBase):
    def __init__(self, folder: str) -> None:
        self.path = Path(folder, f"memory_{comm.get_rank()}.txt")

    def after_step(self) -> None:
        if self.trainer.iter % 50 == 49:
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            with self.path.open("a") as file:
                file.write(f"{megabytes:.1f}\n")


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    register_coco_keypoints("soak", f"{args.folder}/people.json", args.folder, COCO_SKELETON)
    cfg = read_config(
        Path(__file__).parent / "tiny.yaml",
        [
            *("DATASETS.TRAIN", "('soak',)", "DATASETS.TEST", "()", "OUTPUT_DIR", args.output),
            *("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "INPUT.MIN_SIZE_TRAIN", "(32, 48)"),
            *("MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", 0),
            *("INPUT.CROP.RESIZE_MIN_SIZES", "[48, 64]", "INPUT.CROP.SIZE", "(32, 48)"),
            *("DATALOADER.NUM_WORKERS", args.num_workers, "SOLVER.MAX_ITER", args.num_iterations),
            *("SOLVER.STEPS", "(400,)", "SOLVER.CHECKPOINT_PERIOD", 10),
            *("SOLVER.CHECKPOINTS_TO_KEEP", 3, "SOLVER.EMA.ENABLED", True),
            # A batch of one small image is one value to a batch norm.
            *("MODEL.TIMM.FREEZE_BN", True),
        ],
    )
    default_setup(cfg, argparse.Namespace())
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.register_hooks([MemoryLog(args.output), NanGradient(args.nan_at)])
    trainer.train()


if __name__ == "__main__":
    folder, output, num_iterations, num_workers, *nan_at = sys.argv[1:]
    launch(
        main,
        argparse.Namespace(
            folder=folder,
            output=output,
            num_iterations=int(num_iterations),
            num_workers=int(num_workers),
            nan_at=int(nan_at[0]) if nan_at else -1,
            num_gpus=2,
            num_machines=1,
            machine_rank=0,
            dist_url="auto",
        ),
        device="cpu",
    )
