"""Writing videos that browsers play: H.264 by PyAV, frames at their own times, with sound."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from querypose.atomic_files import PartialFile
from querypose.cli.sound import Sound, may_have_sound

# Of a second; a multiple of all usual frame rates.
_TIME_BASE = Fraction(1, 90_000)
# Frames a second that the file names; frames have their own times.
_SLOWEST = Fraction(1, 1001)
# Without B-frames packets leave the encoder in the order in which they are shown. The index before
# the data lets a browser play the video while it loads.
_ENCODER = {"preset": "veryfast", "crf": "20", "bf": "0"}
_CONTAINER = {"movflags": "faststart"}


class H264Writer:
    """A video that appears when its ``with`` block ends without an error.

    Each frame keeps its time. H.264 in browsers has even sizes only: the last row or column of an
    odd size is cut off.

    Attributes:
        target: the finished file.

    Args:
        target: ends with .mkv, .mov or .mp4.
        frame_rate: of the video on average, frames a second.
        sound_of: a video whose sound is copied; None for a silent video.
    """

    def __init__(self, target: Path, frame_rate: float, sound_of: str | None = None) -> None:
        self.target = target
        self._rate = max(Fraction(frame_rate).limit_denominator(1001), _SLOWEST)
        self._sound_of = sound_of
        self._sound: Sound | None = None
        self._size = (0, 0)
        self._file: PartialFile | None = None
        self._container: av.container.OutputContainer | None = None
        self._last_tick, self._last_gap = -1, round(self._rate**-1 / _TIME_BASE)
        self._changes: list[str] = []

    def __enter__(self) -> H264Writer:
        return self

    def write(self, image: np.ndarray, seconds: float, duration: float | None = None) -> None:
        """Shows an RGB frame; the first one sets the video's size.

        Args:
            image: the frame, (H, W, 3) uint8 RGB.
            seconds: when it appears; not earlier than in the last call.
            duration: for how many seconds at least; None takes that of the frame before it.

        Raises:
            ValueError: the first frame is less than two pixels wide or high.
        """
        if self._container is None:
            if min(image.shape[:2]) < 2:
                raise ValueError(
                    f"{self.target} would be a video less than two pixels wide or high."
                )
            self._size = image.shape[1::-1]
            self._open()
        # Two frames cannot appear at once.
        tick = max(round(seconds / _TIME_BASE), self._last_tick + 1)
        if duration is not None:
            self._last_gap = round(duration / _TIME_BASE)
        elif self._last_tick >= 0:
            self._last_gap = tick - self._last_tick
        self._last_tick = tick
        self._mux(self._frame(image, tick))

    def changes(self) -> Iterator[str]:
        """Sentences on what of the input the video lacks."""
        yield from self._changes
        if self._sound is not None and self._sound.loss:
            yield f"{self.target} lacks parts of the sound: {self._sound.loss}."

    def _frame(self, image: np.ndarray, tick: int) -> av.VideoFrame:
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        image = image[: self._stream.height, : self._stream.width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = tick, _TIME_BASE
        return frame

    def _open(self) -> None:
        self._file = PartialFile(self.target)
        self._container = av.open(str(self._file.path), "w", container_options=_CONTAINER)
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=_ENCODER)
        self._stream.width, self._stream.height = (length // 2 * 2 for length in self._size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE
        if self._sound_of is not None and may_have_sound(self._sound_of):
            try:
                self._sound = Sound(self._sound_of, self._container)
            except (av.FFmpegError, ValueError) as error:
                self._changes.append(f"{self.target} has no sound: {error}")

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            if frame is None and packet.pts == self._last_tick:
                packet.duration = self._last_gap
            if self._sound is not None:
                self._sound.copy_until(float(packet.pts * packet.time_base))
            self._container.mux(packet)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._container is None:
            return
        try:
            if error is None:
                self._mux(None)
                if self._sound is not None:
                    end = (self._last_tick + self._last_gap) * _TIME_BASE
                    self._sound.copy_until(float(end))
            self._container.close()
            if error is None:
                self._file.commit()
        finally:
            if self._sound is not None:
                self._sound.close()
            self._file.discard()
