"""A training that takes a second, and ways to disturb it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(autouse=True)
def one_quiet_thread() -> Iterator[None]:
    """Two threads are slower than one where the work is this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_config(tmp_path: Path) -> Callable[..., CfgNode]:
    """``tiny_config("SOLVER.MAX_ITER", 3)``: the tiny config with changes."""

    def make(*opts: Any) -> CfgNode:
        return read_config(TINY, ["OUTPUT_DIR", str(tmp_path / "run"), *opts])

    return make


@pytest.fixture
def start() -> Callable[..., QueryPoseTrainer]:
    """``start(cfg, resume)``: a trainer as train_net.py makes it, ready to train."""

    def make(cfg: CfgNode, resume: bool = False) -> QueryPoseTrainer:
        Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
        trainer = QueryPoseTrainer(cfg)
        trainer.resume_or_load(resume)
        return trainer

    return make


@pytest.fixture
def cpu_scaler() -> Callable[..., torch.amp.GradScaler]:
    """``cpu_scaler(init_scale=2.0)``: a gradient scaler on a CPU, which PyTorch 2.2 lacks."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("PyTorch scales gradients on CPUs since version 2.3")
    return functools.partial(torch.amp.GradScaler, "cpu")


class Killed(BaseException):
    """Ends a training as abruptly as an exception can."""


class KillBefore(HookBase):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise Killed


@pytest.fixture
def train_until_killed(start) -> Callable[..., None]:
    """``train_until_killed(cfg, 5)``: iterations 0 to 4, then the end without a farewell."""

    def train(cfg: CfgNode, iteration: int, resume: bool = False) -> None:
        trainer = start(cfg, resume)
        trainer.register_hooks([KillBefore(iteration)])
        with pytest.raises(Killed):
            trainer.train()

    return train


@pytest.fixture
def assert_same_state() -> Callable[..., None]:
    """Compares two state dicts bit by bit."""

    def check(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
        assert first.keys() == second.keys()
        different = [name for name in first if not torch.equal(first[name], second[name])]
        assert not different

    return check
