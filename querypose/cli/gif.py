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
        self._num_lost = 0
        self._seconds = self._end = 0.0

    def __enter__(self) -> GifWriter:
        return self

    def write(self, image: np.ndarray, seconds: float, duration: float | None = None) -> None:
        """Shows an RGB frame; see :meth:`querypose.cli.pacing.PacedWriter.write`."""
        self._end = seconds + (seconds - self._seconds if duration is None else duration)
        self._seconds = seconds
        start = round(seconds / _UNIT)
        if self._starts and start < self._starts[-1] + _SHORTEST:
            self._num_lost += 1
            return
        frame = Image.fromarray(image)
        if self._frames:
            frame = frame.resize(self._frames[0].size)
        self._frames.append(frame.quantize(dither=Image.Dither.NONE))
        self._starts.append(start)

    def changes(self) -> Iterator[str]:
        """A sentence on frames that follow each other too fast; colors are lost anyway."""
        if self._num_lost:
            yield (
                f"{self.target} lacks {self._num_lost} of the frames: at "
                f"{1 / (_SHORTEST * _UNIT):g} frames a second they have no position of their own."
            )

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None or not self._frames:
            return
        end = max(round(self._end / _UNIT), self._starts[-1] + _SHORTEST)
        milliseconds = (np.diff([*self._starts, end]) * round(1000 * _UNIT)).tolist()
        first, *others = self._frames
        with atomic_file(self.target) as path:
            first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
