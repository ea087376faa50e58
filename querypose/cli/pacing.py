"""Timing of drawn videos: frames at any times become a video of one frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from querypose.cli.video import VideoWriter

# Enough frames to see that a video is of one frame rate.
_NUM_PROBED = 64
_MAX_FRAME_RATE = 240.0
# In frame intervals; a stamp may be rounded to milliseconds.
_TOLERANCE = 0.25
# Longer ones may come of a broken time stamp, and would fill a disk.
_LONGEST_PAUSE = 600.0


def steady_frame_rate(times: Iterable[float], stated: float) -> float:
    """The frame rate of a video that has a place of its own for every frame.

    It is the stated one where the first frames fit to it. Otherwise all times are looked at: the
    two frames that follow each other quickest are one frame interval apart.

    Args:
        times: of the frames, in seconds, rising.
        stated: frames a second, as the container says: perhaps on average, or of its clock.
    """
    times = iter(times)
    seconds = list(islice(times, _NUM_PROBED))
    if _fit(seconds, stated):
        return stated
    seconds += times
    gaps = [later - earlier for earlier, later in pairwise(seconds) if later > earlier]
    if not gaps:
        return stated
    # Two decimals, since some codecs keep rates as fractions of small numbers.
    return round(min(1 / min(gaps), _MAX_FRAME_RATE), 2)


def _fit(seconds: list[float], frame_rate: float) -> bool:
    places = [time * frame_rate for time in seconds]
    in_place = all(abs(place - round(place)) < _TOLERANCE for place in places)
    steps = [round(later) - round(earlier) for earlier, later in pairwise(places)]
    return in_place and min(steps, default=1) == 1


class PacedWriter:
    """Writes frames at their times: each one is repeated until the next is due.

    Args:
        writer: of the video.
    """

    def __init__(self, writer: VideoWriter) -> None:
        self._writer = writer
        self._num_lost = 0
        self._num_cut = 0
        self._shown: np.ndarray | None = None
        self._seconds = 0.0
        self._duration = 0.0
        self._cut_seconds = 0.0

    @property
    def target(self) -> Path:
        """Where the video stands in the end."""
        return self._writer.target

    def write(self, image: np.ndarray, seconds: float, duration: float | None = None) -> None:
        """Shows an RGB frame.

        Args:
            image: the frame.
            seconds: from when on; not before that of the last call.
            duration: how long at least; None for as long as the frame before it.
        """
        gap = seconds - self._seconds
        if gap > _LONGEST_PAUSE:
            self._num_cut += 1
            self._cut_seconds += gap - 1 / self._writer.frame_rate
            gap = 1 / self._writer.frame_rate
        self._duration = gap if duration is None else duration
        self._seconds = seconds
        place = self._place(seconds)
        self._fill(place, image if self._shown is None else self._shown)
        self._shown = image
        if self._writer.num_frames > place:
            self._num_lost += 1
        else:
            self._writer.write(image)

    def finish(self) -> None:
        """Shows the last frame for its duration."""
        if self._shown is not None:
            self._fill(self._place(self._seconds + self._duration), self._shown)

    def changes(self) -> Iterator[str]:
        """Sentences on where the video's timing is not that of its frames."""
        if self._num_lost:
            yield (
                f"{self.target} lacks {self._num_lost} of the frames: at "
                f"{self._writer.frame_rate:g} frames a second they have no place of their own."
            )
        if self._num_cut:
            yield f"{self.target} lacks {self._num_cut} of the pauses: they last over ten minutes."

    def _place(self, seconds: float) -> int:
        return round((seconds - self._cut_seconds) * self._writer.frame_rate)

    def _fill(self, num_frames: int, image: np.ndarray) -> None:
        while self._writer.num_frames < num_frames:
            self._writer.write(image)


@contextmanager
def open_paced_writer(target: Path, frame_rate: float) -> Iterator[PacedWriter]:
    """A :class:`PacedWriter` of a video that appears when the block ends well."""
    with VideoWriter(target, frame_rate) as writer:
        paced = PacedWriter(writer)
        yield paced
        paced.finish()
