"""Time of the parts of a model."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Stopwatch:
    """Adds up seconds by name.

    Args:
        device: of the model; times include all work of a GPU.
        clock: in seconds.

    Attributes:
        seconds: by name.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device = device
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, parts: dict[str, list[nn.Module]]) -> None:
        """Measures every forward pass of modules under the name of their part."""
        for name, modules in parts.items():
            for module in modules:
                module.register_forward_pre_hook(self._changes(name, -1))
                module.register_forward_hook(self._changes(name, 1))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures the ``with`` block."""
        self.seconds[name] -= self._now()
        yield
        self.seconds[name] += self._now()

    def _changes(self, name: str, sign: int) -> Callable[..., None]:
        def add_time(*_: Any) -> None:
            self.seconds[name] += sign * self._now()

        return add_time

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self._clock()
