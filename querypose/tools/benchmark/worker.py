"""Each setting runs in a process of its own, which has its own peak memory."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from statistics import fmean
from typing import NamedTuple

import torch

from querypose.freed_memory import keep_freed_memory
from querypose.tools.benchmark.cost import Cost
from querypose.tools.benchmark.data import batch_seconds
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import Workload


class Measurement(NamedTuple):
    """Measurements of one setting.

    Attributes:
        setting: what was measured.
        seconds: by part, of the run of median total: they add up.
        data_seconds: in which one process reads and augments a training batch, if a dataset is
            given.
        peak_bytes: memory for the model and the runs: on a CPU by the process, on a GPU by the
            allocator.
        cost: parameters, and multiply-adds of a forward pass.
    """

    setting: Setting
    seconds: dict[str, float]
    data_seconds: float | None
    peak_bytes: int
    cost: Cost


class _Worker:
    """Runs one setting on demand in a child process."""

    def __init__(self, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        arguments = (setting, child_connection)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        child_connection.close()

    def ask(self, question: str) -> object:
        try:
            self._connection.send(question)
            answer = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError("A benchmark process died: see its message above.") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(timeout=10)


def measure(settings: Sequence[Setting], *, repeats: int, warm_up: int = 1) -> list[Measurement]:
    """Measures settings in turn, A B A B ..., so that a change in machine speed affects them all.

    Args:
        settings: all are in memory at the same time.
        repeats: measured runs of each setting.
        warm_up: runs of each setting before.
    """
    # While no other process computes.
    data_seconds = [batch_seconds(setting) for setting in settings]
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(setting)) for setting in settings]
        rounds = [[worker.ask("run") for worker in workers] for _ in range(warm_up + repeats)]
        seconds = [median_run(runs) for runs in zip(*rounds[warm_up:], strict=True)]
        peaks = [worker.ask("peak") for worker in workers]
        costs = [worker.ask("cost") for worker in workers]
    columns = (settings, seconds, data_seconds, peaks, costs)
    return [Measurement(*row) for row in zip(*columns, strict=True)]


def median_run(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The run of median ``total``, or the mean of the two in the middle, by part.

    Medians of every part would not add up to the total.
    """
    ordered = sorted(runs, key=lambda run: run["total"])
    middle = ordered[(len(runs) - 1) // 2 : len(runs) // 2 + 1]
    return {part: fmean(run[part] for run in middle) for part in runs[0]}


def _serve(setting: Setting, connection: Connection) -> None:
    # As the commands do.
    keep_freed_memory()
    without_model = _process_bytes()
    try:
        workload = Workload(setting)
    except (OSError, ValueError) as error:
        # A mistake of the user: the parent reports it.
        with suppress(EOFError, ConnectionError):
            connection.recv()
            connection.send(error)
        return
    answers = {
        "run": workload.run,
        "peak": lambda: _peak_bytes(workload.device, without_model),
        "cost": workload.cost,
    }
    while True:
        try:
            connection.send(answers[connection.recv()]())
        except EOFError:
            return


def _peak_bytes(device: torch.device, without_model: int) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _process_bytes() - without_model


def _process_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
