"""Where the demo's time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from tabulate import tabulate

Item = TypeVar("Item")


class Stopwatch:
    """Sums up the time of named steps, each of which belongs to one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Adds the time of a ``with`` block to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - start

    def measured(self, step: str, items: Generator[Item, None, None]) -> Iterator[Item]:
        """Iterates, and adds the time that the iteration itself takes to a step."""
        end = object()
        with closing(items):
            while True:
                with self.measure(step):
                    item = next(items, end)
                if item is end:
                    return
                yield item

    def table(self, num_frames: int) -> str:
        """A line a step: its milliseconds a frame on average."""
        lines = [
            (step, 1000 * seconds / max(1, num_frames)) for step, seconds in self.seconds.items()
        ]
        return tabulate(lines, headers=("step", "ms a frame"), floatfmt=".2f")
