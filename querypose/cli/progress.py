"""How far the demo has come, and its messages to the user."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from querypose.cli.interruption import Interruption
from querypose.cli.timing import Stopwatch


class Progress:
    """How far the demo has come.

    Attributes:
        interruption: whether the user asked to stop.
        num_failures: inputs that were skipped and results that could not be written.
        num_frames: images and frames that are done, unreadable ones included.
        stopwatch: time by step.
        written: the finished files.
    """

    def __init__(self) -> None:
        self.interruption = Interruption()
        self.num_failures = 0
        self.num_frames = 0
        self.stopwatch = Stopwatch()
        self.written: list[Path] = []

    def fail(self, message: str) -> None:
        """Reports a failure that the exit status will reflect."""
        self.num_failures += 1
        report(message)


def report(message: str, command: str = "querypose-demo") -> None:
    """Writes a line of a command to stderr without breaking the progress bar."""
    tqdm.write(f"{command}: {message}", file=sys.stderr)
