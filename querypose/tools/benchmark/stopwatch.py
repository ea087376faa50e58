"""How much time the parts of a model take."""

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
        device: whose work counts; a GPU is waited for.

    Attributes:
        seconds: so far.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, parts: dict[str, list[nn.Module]]) -> None:
        """Measures every forward pass of the modules under their part's name."""
        for name, modules in parts.items():
            for module in modules:
                module.register_forward_pre_hook(self._changes(name, -1))
                module.register_forward_hook(self._changes(name, 1))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures what is done within."""
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
        return time.perf_counter()
