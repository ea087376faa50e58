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

    Of pieces that run inside one another the outermost counts, so that no second counts twice:
    gradient checkpointing, for one, runs modules again in the backward pass.

    Args:
        device: of the model; times include all work of a GPU.
        clock: in seconds.

    Attributes:
        seconds: by name.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device = device
        self._clock = clock
        self._outermost: object | None = None
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, parts: dict[str, list[nn.Module]]) -> None:
        """Measures every forward pass of modules under the name of their part."""
        for name, modules in parts.items():
            for module in modules:
                module.register_forward_pre_hook(
                    lambda part, *_, name=name: self._start(part, name)
                )
                module.register_forward_hook(lambda part, *_, name=name: self._stop(part, name))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measures the ``with`` block."""
        block = object()
        self._start(block, name)
        yield
        self._stop(block, name)

    def now(self) -> float:
        """Seconds since some moment, when all work so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._clock()

    def _start(self, piece: Any, name: str) -> None:
        if self._outermost is None:
            self._outermost = piece
            self.seconds[name] -= self.now()

    def _stop(self, piece: Any, name: str) -> None:
        if self._outermost is piece:
            self.seconds[name] += self.now()
            self._outermost = None
