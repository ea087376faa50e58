"""A setting in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from statistics import median
from typing import NamedTuple

import torch

from querypose.tools.benchmark.cost import Cost
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import Workload


class Measurement(NamedTuple):
    """What was measured of one setting.

    Attributes:
        setting: it.
        seconds: median by part.
        peak_bytes: of model and runs: on a CPU what they add to the process, on a GPU what the
            allocator gave them.
        cost: parameters, and multiply-adds of a forward pass.
    """

    setting: Setting
    seconds: dict[str, float]
    peak_bytes: int
    cost: Cost


class _Worker:
    """The parent's end of a process that runs one setting on demand."""

    def __init__(self, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(setting, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str) -> object:
        try:
            self._connection.send(question)
            answer = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError("A benchmark process died; its message stands above.") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(timeout=10)


def measure(settings: Sequence[Setting], *, repeats: int, warm_up: int = 1) -> list[Measurement]:
    """Measures settings in turn, A B A B ..., so that a drifting machine is fair to all.

    Args:
        settings: what to measure; all are held in memory at once.
        repeats: counted runs of each.
        warm_up: uncounted runs of each, first.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(setting)) for setting in settings]
        rounds = [[worker.ask("run") for worker in workers] for _ in range(warm_up + repeats)]
        runs = zip(*rounds[warm_up:], strict=True)
        seconds = [{part: median(run[part] for run in ours) for part in ours[0]} for ours in runs]
        peaks = [worker.ask("peak") for worker in workers]
        costs = [worker.ask("cost") for worker in workers]
    columns = (settings, seconds, peaks, costs)
    return [Measurement(*row) for row in zip(*columns, strict=True)]


def _serve(setting: Setting, connection: Connection) -> None:
    without_model = _peak_bytes(setting.device)
    try:
        workload = Workload(setting)
    except (OSError, ValueError) as error:
        # A user's mistake, for the parent to tell in one sentence when it asks.
        with suppress(EOFError, ConnectionError):
            connection.recv()
            connection.send(error)
        return
    answers = {
        "run": workload.run,
        "peak": lambda: _peak_bytes(setting.device) - without_model,
        "cost": workload.cost,
    }
    while True:
        try:
            connection.send(answers[connection.recv()]())
        except EOFError:
            return


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
