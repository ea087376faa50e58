"""Timing of drawn videos: frames at any times become a video with a constant frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from querypose.cli.video import VideoWriter

# Enough frames to recognize a constant frame rate.
_NUM_PROBED = 64
_MAX_FRAME_RATE = 240.0
# In frame intervals: stamps may be rounded to milliseconds.
_TOLERANCE = 0.25
# In seconds; a longer pause probably comes from a broken time stamp, and would fill the disk.
_LONGEST_PAUSE = 600.0


def steady_frame_rate(times: Iterable[float], stated: float) -> float:
    """The constant frame rate at which every frame gets a position of its own.

    This is the stated frame rate if the first frames fit it. Otherwise the shortest time between
    two frames of the whole video becomes the frame interval.

    Args:
        times: of the frames, in seconds, not decreasing.
        stated: frames a second by the container, which may be an average or the rate of its clock.
    """
    times = iter(times)
    seconds = list(islice(times, _NUM_PROBED))
    if _fits(seconds, stated):
        return stated
    seconds += times
    gaps = [later - earlier for earlier, later in pairwise(seconds) if later > earlier]
    if not gaps:
        return stated
    # Some codecs store the rate as a fraction of small numbers.
    return round(min(1 / min(gaps), _MAX_FRAME_RATE), 2)


def _fits(seconds: list[float], frame_rate: float) -> bool:
    positions = [time * frame_rate for time in seconds]
    on_grid = all(abs(position - round(position)) < _TOLERANCE for position in positions)
    steps = [round(later) - round(earlier) for earlier, later in pairwise(positions)]
    return on_grid and min(steps, default=1) == 1


class PacedWriter:
    """Writes frames at their times by repeating each one until the next.

    Args:
        writer: of the video.
        lacks_sound: whether the frames are of a video with sound, which OpenCV does not write.
    """

    def __init__(self, writer: VideoWriter, lacks_sound: bool = False) -> None:
        self._writer = writer
        self._lacks_sound = lacks_sound
        self._num_lost = 0
        self._num_cut = 0
        self._shown: np.ndarray | None = None
        self._seconds = 0.0
        self._duration = 0.0
        self._cut_seconds = 0.0

    @property
    def target(self) -> Path:
        """The finished video."""
        return self._writer.target

    def write(self, image: np.ndarray, seconds: float, duration: float | None = None) -> None:
        """Shows an RGB frame.

        Args:
            image: the frame, (H, W, 3) uint8 RGB.
            seconds: when it appears; not earlier than in the last call.
            duration: for how many seconds at least; None takes that of the frame before it.
        """
        gap = seconds - self._seconds
        if gap > _LONGEST_PAUSE:
            self._num_cut += 1
            self._cut_seconds += gap - 1 / self._writer.frame_rate
            gap = 1 / self._writer.frame_rate
        self._duration = gap if duration is None else duration
        self._seconds = seconds
        position = self._position(seconds)
        self._repeat(image if self._shown is None else self._shown, position)
        self._shown = image
        if self._writer.num_frames > position:
            self._num_lost += 1
        else:
            self._writer.write(image)

    def finish(self) -> None:
        """Shows the last frame for its duration."""
        if self._shown is not None:
            self._repeat(self._shown, self._position(self._seconds + self._duration))

    def changes(self) -> Iterator[str]:
        """Sentences on the file, and where its timing differs from that of the frames."""
        if self._writer.remark:
            yield self._writer.remark
        if self._lacks_sound:
            yield (
                f"{self.target} has no sound: with PyAV (pip install av), .mkv, .mov and .mp4 "
                "files keep it."
            )
        if self._num_lost:
            yield (
                f"{self.target} lacks {self._num_lost} of the frames: at "
                f"{self._writer.frame_rate:g} frames a second they have no position of their own."
            )
        if self._num_cut:
            yield f"{self.target} lacks {self._num_cut} of the pauses: they last over ten minutes."

    def _position(self, seconds: float) -> int:
        return round((seconds - self._cut_seconds) * self._writer.frame_rate)

    def _repeat(self, image: np.ndarray, end: int) -> None:
        while self._writer.num_frames < end:
            self._writer.write(image)


@contextmanager
def open_paced_writer(
    target: Path, frame_rate: float, lacks_sound: bool = False
) -> Iterator[PacedWriter]:
    """A :class:`PacedWriter` for a video that appears when the block ends without an error."""
    with VideoWriter(target, frame_rate) as writer:
        paced = PacedWriter(writer, lacks_sound)
        yield paced
        paced.finish()
