"""What two training processes do together; torchrun runs it, test_distributed.py reads the results.

Every scenario writes ``SCENARIO_RANK.pth`` into the folder that the command line names.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer, launch
from querypose.engine.consensus import from_main_process, wait_for_all

Batch = list[dict[str, Any]]

# A loss with a normalizer of its own.
_WITH_HEATMAPS = ("MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED", True)


def configured(folder: str, name: str, *opts: Any) -> CfgNode:
    fixed = ["OUTPUT_DIR", f"{folder}/{name}", "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", 4]
    return read_config(Path(__file__).parent / "tiny.yaml", [*fixed, *opts])


def start(cfg: CfgNode, resume: bool = False) -> QueryPoseTrainer:
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    seed_all_rng(cfg.SEED)
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume)
    return trainer


def freeze_statistics(model: nn.Module) -> None:
    """Batch norms see the rows of their own process, which is no difference that we look for."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def results(trainer: QueryPoseTrainer) -> dict[str, Any]:
    model = getattr(trainer.model, "module", trainer.model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {
        "iteration": trainer.iter,
        "skipped": trainer._trainer.num_skipped,
        "parameters": {name: p.detach().clone() for name, p in trained.items()},
        "without_gradient": [name for name, p in trained.items() if p.grad is None],
    }


def feed(trainer: QueryPoseTrainer, batches: Iterator[Batch]) -> None:
    trainer._trainer._data_loader_iter_obj = batches


def same_global_batch(folder: str) -> dict[str, Any]:
    # Images of one size, since padding depends on what else is in a process's batch; and a
    # step that is proportional to the gradient.
    opts = ("SOLVER.MAX_ITER", 3, "INPUT.CROP.ENABLED", False, "SOLVER.OPTIMIZER", "SGD")
    opts += ("SOLVER.CLIP_GRADIENTS.ENABLED", False, *_WITH_HEATMAPS)
    # With this seed no ReLU is so near to zero that rounding turns it on or off.
    opts += ("SEED", 2)
    trainer = start(configured(folder, f"same_{comm.get_world_size()}", *opts))
    freeze_statistics(trainer.model)
    trainer.train()
    return results(trainer)


def without_people(batch: Batch) -> Batch:
    return [sample | {"instances": sample["instances"][:0]} for sample in batch]


def one_process_without_people(folder: str) -> dict[str, Any]:
    """In the last iteration nobody has any."""
    opts = ("SOLVER.MAX_ITER", 3, "SOLVER.ACCUMULATE_STEPS", 2, "SOLVER.EMA.ENABLED", True)
    trainer = start(configured(folder, "empty", *opts))
    batches = (
        without_people(batch) if comm.get_rank() == 1 or count >= 4 else batch
        for count, batch in enumerate(trainer.data_loader)
    )
    feed(trainer, batches)
    trainer.train()
    buffers = dict(trainer.model.named_buffers())
    buffers |= {f"average.{name}": value for name, value in trainer.averaged.named_buffers()}
    return results(trainer) | {"evaluated_buffers": buffers}


def bad_numbers_in_one_process(folder: str) -> dict[str, Any]:
    """Two bad batches, of which one may be skipped."""
    trainer = start(configured(folder, "bad", "SOLVER.MAX_SKIPPED_BATCHES", 1, *_WITH_HEATMAPS))
    feed(
        trainer,
        (
            [sample | {"image": sample["image"] * float("nan")} for sample in batch]
            if comm.get_rank() == 1 and count in (1, 3)
            else batch
            for count, batch in enumerate(trainer.data_loader)
        ),
    )
    try:
        trainer.train()
    except FloatingPointError as error:
        return results(trainer) | {"message": str(error)}
    return results(trainer)


def sigterm_to_one_process(folder: str) -> dict[str, Any]:
    class Terminate(HookBase):
        def before_step(self) -> None:
            if self.trainer.iter == 2 and comm.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    cfg = configured(folder, "sigterm")
    trainer = start(cfg)
    trainer.register_hooks([Terminate()])
    try:
        trainer.train()
    except SystemExit as end:
        return results(trainer) | {"code": end.code, "resumed": start(cfg, True).start_iter}
    return results(trainer)


def checkpoint_on_one_disk_only(folder: str) -> dict[str, Any]:
    cfg = configured(folder, f"disk_{comm.get_rank()}")
    if comm.get_rank() == 0:
        cfg.OUTPUT_DIR = f"{folder}/sigterm"
    try:
        start(cfg, resume=True)
    except FileNotFoundError as error:
        return {"message": str(error)}
    return {}


def uneven_batch(folder: str) -> dict[str, Any]:
    try:
        start(configured(folder, "uneven", "SOLVER.IMS_PER_BATCH", 3))
    except ValueError as error:
        return {"message": str(error)}
    return {}


def error_of_the_main_process(folder: str) -> dict[str, Any]:
    def fail() -> None:
        raise FileNotFoundError(f"Nothing is in {folder}.")

    wait_for_all()
    said = from_main_process(lambda: f"by {comm.get_rank()}")
    try:
        from_main_process(fail)
    except FileNotFoundError as error:
        return {"said": said, "message": str(error)}
    return {"said": said}


SCENARIOS = (
    same_global_batch,
    one_process_without_people,
    bad_numbers_in_one_process,
    sigterm_to_one_process,
    checkpoint_on_one_disk_only,
    uneven_batch,
    error_of_the_main_process,
)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    for scenario in SCENARIOS[: args.count]:
        result = scenario(args.folder)
        torch.save(result, Path(args.folder, f"{scenario.__name__}_{comm.get_rank()}.pth"))
        comm.synchronize()


if __name__ == "__main__":
    launch(main, argparse.Namespace(folder=sys.argv[1], count=len(SCENARIOS)), device="cpu")
