"""Writing animated GIFs with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from querypose.atomic_files import atomic_file

# The unit of durations in a GIF, in seconds; browsers slow frames down that are shown for less
# than two.
_UNIT = 0.01
_SHORTEST = 2


class GifWriter:
    """An animated GIF that appears when its ``with`` block ends without an error.

    Its frames are kept in memory until then, at a byte per pixel.

    Attributes:
        target: the finished file.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._frames: list[Image.Image] = []
        self._starts: list[int] = []
        self._last_duration = 0

    def __enter__(self) -> GifWriter:
        return self

    def write(self, image: np.ndarray, seconds: float, duration: float | None = None) -> None:
        """Shows an RGB frame; see :meth:`querypose.cli.pacing.PacedWriter.write`."""
        start = round(seconds / _UNIT)
        if self._starts:
            start = max(start, self._starts[-1] + _SHORTEST)
            self._last_duration = start - self._starts[-1]
        if duration is not None:
            self._last_duration = round(duration / _UNIT)
        frame = Image.fromarray(image)
        if self._frames:
            frame = frame.resize(self._frames[0].size)
        self._frames.append(frame.quantize(dither=Image.Dither.NONE))
        self._starts.append(start)

    def changes(self) -> Iterator[str]:
        """Nothing is lost but colors."""
        yield from ()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None or not self._frames:
            return
        end = self._starts[-1] + max(self._last_duration, _SHORTEST)
        milliseconds = (np.diff([*self._starts, end]) * round(1000 * _UNIT)).tolist()
        first, *others = self._frames
        with atomic_file(self.target) as path:
            first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
