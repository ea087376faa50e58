"""Reading and writing videos with OpenCV."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from querypose.atomic_files import PartialFile
from querypose.cli.clock import FrameClock

CODECS = {".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v", ".mp4": "mp4v"}
"""Codecs that OpenCV's wheels can write, by file suffix."""

_DEFAULT_FRAME_RATE = 30.0
# So many failures in a row mean the end of a video: its stated length may be wrong.
_MAX_BROKEN_FRAMES = 60


class TimedFrame(NamedTuple):
    """A frame of a stream.

    Attributes:
        index: from 0; frames that could not be decoded count, too.
        seconds: since the start of the stream.
        image: (H, W, 3) uint8 RGB.
        duration: in seconds, if the stream states it.
    """

    index: int
    seconds: float
    image: np.ndarray
    duration: float | None = None


def _check_utf_8(path: Path) -> None:
    """Raises an error at paths that make OpenCV end the process."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"The path of the video {path} is not in UTF-8, which OpenCV needs: rename it."
        ) from error


class VideoReader:
    """Frames of a video file or a webcam.

    Attributes:
        frame_rate: frames a second.
        num_frames: as stated by the file, in some containers an estimate; None if it is not
            stated.
        num_broken: frames that could not be decoded so far.

    Args:
        source: a path, or the number of a webcam.

    Raises:
        ValueError: it cannot be opened, or OpenCV cannot take its path.
    """

    def __init__(self, source: str | int) -> None:
        self._live = isinstance(source, int)
        if not self._live:
            _check_utf_8(Path(source))
        # FFmpeg takes "12:" at the start of a path for a protocol.
        self._capture = cv2.VideoCapture(source if self._live else str(Path(source).absolute()))
        if not self._capture.isOpened():
            what = f"webcam {source}" if self._live else f"video {source}"
            raise ValueError(f"The {what} cannot be read.")
        if self._live:
            # Without a buffer, frames are current.
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = rate if math.isfinite(rate) and rate > 0 else _DEFAULT_FRAME_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(count) if 0 < count < 2**31 and not self._live else None
        self.num_broken = 0
        self._num_read = 0
        self._clock = FrameClock(self.frame_rate)

    @property
    def missing_seconds(self) -> float:
        """How much earlier than its stated length the video ended; 0 if it did not."""
        if self.num_frames is None or self._num_read + self.num_broken >= self.num_frames:
            return 0.0
        missing = self.num_frames / self.frame_rate - self._clock.end
        return missing if missing > 0.5 * self._clock.longest_gap else 0.0

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yields frames and skips those that cannot be decoded.

        Times are those of a :class:`FrameClock` for a video, wall time for a webcam.
        """
        index = failures = 0
        start = time.monotonic()
        try:
            while failures < _MAX_BROKEN_FRAMES:
                image = self._read()
                if image is not None:
                    self.num_broken += failures
                    failures = 0
                    self._num_read += 1
                    stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    elapsed = time.monotonic() - start
                    seconds = elapsed if self._live else self._clock.seconds(index, stamp)
                    yield TimedFrame(index, seconds, image)
                elif self._live or self.num_frames is None or index >= self.num_frames:
                    break
                else:
                    failures += 1
                index += 1
        finally:
            self._capture.release()

    def _read(self) -> np.ndarray | None:
        try:
            success, image = self._capture.read()
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if success else None
        except cv2.error:
            return None


class VideoWriter:
    """A video file that appears when its ``with`` block ends without an error.

    If OpenCV lacks the codec for the suffix, the video becomes a Motion JPEG ``.avi``. The codecs
    support even sizes only: the last row or column of an odd size is cut off.

    Attributes:
        target: the finished file.
        frame_rate: frames a second.
        num_frames: written so far.
        remark: a sentence on what the user may not expect of the file, else "".

    Args:
        target: ends with one of :data:`CODECS`.
        frame_rate: frames a second.
    """

    def __init__(self, target: Path, frame_rate: float) -> None:
        self.num_frames = 0
        self.remark = ""
        self.target = target
        self.frame_rate = frame_rate
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None
        self._file: PartialFile | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: np.ndarray) -> None:
        """Appends an RGB frame; the first one sets the video's size.

        Raises:
            ValueError: this OpenCV has no codec for the file, or cannot take its path.
        """
        if self._writer is None:
            self._size = image.shape[1::-1]
            self._open()
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.num_frames += 1

    def _open(self) -> None:
        wanted = self.target
        _check_utf_8(wanted)
        for target in dict.fromkeys([wanted, wanted.with_suffix(".avi")]):
            file = PartialFile(target)
            codec = CODECS[target.suffix.lower()]
            fourcc = cv2.VideoWriter.fourcc(*codec)
            writer = cv2.VideoWriter(str(file.path), fourcc, self.frame_rate, self._size)
            if writer.isOpened():
                self._writer, self._file, self.target = writer, file, target
                if target != wanted:
                    self.remark = f"This OpenCV has no codec for {wanted}: the video is {target}."
                elif codec == "mp4v":
                    self.remark = (
                        f"{target} is coded in MPEG-4 Part 2, which browsers do not play: "
                        "pip install av, and it is coded in H.264."
                    )
                return
            writer.release()
            file.discard()
        raise ValueError(f"This OpenCV has no codec for the video {wanted}.")

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        try:
            if error is None:
                self._check_readable()
                self._file.commit()
        finally:
            self._file.discard()

    def _check_readable(self) -> None:
        """OpenCV reports neither a full disk nor a failing codec."""
        with closing(iter(VideoReader(str(self._file.path)))) as frames:
            if next(frames, None) is None:
                raise ValueError(f"The video {self.target} could not be written.")
