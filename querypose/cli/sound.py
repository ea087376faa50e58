"""The sound of a video, copied into the drawn one."""

from __future__ import annotations

import io
import math
from pathlib import Path

import av


def _open(source: str) -> av.container.InputContainer:
    # FFmpeg takes "12:" at the start of a path for a protocol.
    return av.open(str(Path(source).absolute()))


def may_have_sound(source: str) -> bool:
    """Whether a video has sound, or cannot be read by PyAV so that nobody knows."""
    try:
        with _open(source) as container:
            return bool(container.streams.audio and container.streams.video)
    except av.FFmpegError:
        return True


def _check_held(source: str, format_name: str) -> None:
    """Copies one packet: some formats refuse a codec, or a variant of it, only at the end."""
    with _open(source) as container:
        stream = container.streams.audio[0]
        try:
            with av.open(io.BytesIO(), "w", format_name) as trial:
                packet = next(container.demux(stream))
                packet.stream = trial.add_stream_from_template(stream)
                trial.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            codec = stream.codec_context.name if stream.codec_context else "which is unknown"
            raise ValueError(f"{format_name} cannot hold its codec {codec}.") from error


class Sound:
    """Copies the sound of a video, packet by packet, without decoding it.

    Attributes:
        loss: why parts of the sound could not be copied; "" if all were.

    Args:
        source: a video with sound.
        output: takes the sound as a further stream.

    Raises:
        ValueError: the output cannot hold the codec of the sound.
        av.FFmpegError: the source cannot be read.
    """

    def __init__(self, source: str, output: av.container.OutputContainer) -> None:
        self.loss = ""
        self._output = output
        _check_held(source, output.format.name)
        self._source = _open(source)
        stream = self._source.streams.audio[0]
        video = self._source.streams.video[0]
        self._stream = output.add_stream_from_template(stream)
        # Times of frames count from the start of the video.
        self._offset = round((video.start_time or 0) * video.time_base / stream.time_base)
        self._latest, self._end = -math.inf, 0
        self._packets = self._source.demux(stream)
        self._next = self._read()

    def copy_until(self, seconds: float) -> None:
        """Copies what is heard before a time."""
        while self._next is not None and float(self._next.pts * self._next.time_base) < seconds:
            if self._next.pts >= 0:
                self._copy(self._next)
            self._next = self._read()

    def close(self) -> None:
        """Closes the source."""
        self._source.close()

    def _read(self) -> av.Packet | None:
        """The next packet, with its time in the output; None at the end."""
        try:
            packet = next(self._packets, None)
        except av.FFmpegError as error:
            self.loss = error.strerror
            return None
        if packet is None or packet.pts is None:
            return None
        pts = packet.pts - self._offset
        if pts <= self._latest:
            # In files that were joined the stamps start again: the sound goes on where it ended.
            self._offset += pts - self._end
            pts = self._end
        self._latest, self._end = pts, pts + max(packet.duration or 0, 1)
        packet.pts = packet.dts = pts
        return packet

    def _copy(self, packet: av.Packet) -> None:
        packet.stream = self._stream
        try:
            self._output.mux(packet)
        except av.FFmpegError as error:
            self.loss = error.strerror
