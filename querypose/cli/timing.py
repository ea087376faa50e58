"""The time that each step of the demo takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from tabulate import tabulate

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the time of named steps; each step must stay on one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Adds the time of the ``with`` block to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - start

    def measure_items(self, step: str, items: Generator[Item, None, None]) -> Iterator[Item]:
        """Yields the items and adds the time that producing them takes to a step."""
        end = object()
        with closing(items):
            while True:
                with self.measure(step):
                    item = next(items, end)
                if item is end:
                    return
                yield item

    def table(self, num_frames: int) -> str:
        """A table of the mean milliseconds per frame of each step."""
        rows = [
            (step, 1000 * seconds / max(1, num_frames)) for step, seconds in self.seconds.items()
        ]
        return tabulate(rows, headers=("step", "ms per frame"), floatfmt=".2f")
