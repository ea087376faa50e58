"""The writer of a drawn animation or video, by the name of its file and what is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from querypose.cli.gif import GifWriter
from querypose.cli.pacing import open_paced_writer

_IN_H264 = frozenset({".mkv", ".mov", ".mp4"})


class StreamWriter(Protocol):
    """Writes the frames of an animation or a video.

    Attributes:
        target: the finished file.
    """

    target: Path

    def write(self, image: np.ndarray, seconds: float, duration: float | None = None) -> None:
        """Shows an RGB frame.

        Args:
            image: the frame, (H, W, 3) uint8 RGB.
            seconds: when it appears; not earlier than in the last call.
            duration: for how many seconds at least; None takes that of the frame before it.
        """

    def changes(self) -> Iterable[str]:
        """Sentences on what the file lacks, or what the user may not expect of it."""


def _has_sound(video: str | None) -> bool:
    if video is None:
        return False
    if find_spec("av") is None:
        # OpenCV does not tell.
        return True
    from querypose.cli.sound import may_have_sound

    return may_have_sound(video)


@contextmanager
def open_stream_writer(
    target: Path,
    *,
    frame_rate: float,
    steady_frame_rate: Callable[[], float],
    sound_of: str | None,
) -> Iterator[StreamWriter]:
    """A writer of frames at their times; its file appears when the block ends without an error.

    Args:
        target: the file.
        frame_rate: of the input, frames a second.
        steady_frame_rate: finds the rate at which every frame has a position of its own, which
            OpenCV needs.
        sound_of: a video whose sound is copied where PyAV is installed; None if there is no sound.
    """
    if target.suffix.lower() == ".gif":
        writer = GifWriter(target)
    elif target.suffix.lower() in _IN_H264 and find_spec("av") is not None:
        # PyAV is optional.
        from querypose.cli.h264 import H264Writer

        writer = H264Writer(target, frame_rate, sound_of)
    else:
        writer = open_paced_writer(target, steady_frame_rate(), lacks_sound=_has_sound(sound_of))
    with writer as open_writer:
        yield open_writer
