"""Reading animated images with Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator

from PIL import Image

from querypose.cli.video import TimedFrame
from querypose.data.image import decode, why_unreadable

# Browsers show a frame without a duration this long.
_DEFAULT_SECONDS = 0.1


class AnimationReader:
    """Frames of a GIF, APNG, WebP or AVIF file; has the interface of a :class:`VideoReader`.

    Attributes:
        frame_rate: frames a second, from the duration of the first frame.
        num_frames: as stated by the file.
        num_broken: frames that could not be decoded so far.
        missing_seconds: always 0: no animation states its length.

    Args:
        source: a path.

    Raises:
        ValueError: it cannot be opened.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        try:
            with Image.open(source) as animation:
                # The default image of an APNG is for readers without support for animations.
                self._first = int(getattr(animation, "default_image", False))
                self.num_frames = animation.n_frames - self._first
                animation.seek(self._first)
                animation.load()
                self.frame_rate = 1 / _duration(animation)
        except Exception as error:
            reason = why_unreadable(error)
            raise ValueError(f"The animation {source} cannot be read: {reason}.") from error
        self.num_broken = 0
        self.missing_seconds = 0.0

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yields frames up to the first broken one, which later frames build on."""
        seconds = 0.0
        with Image.open(self._source) as animation:
            for index in range(self.num_frames):
                try:
                    animation.seek(self._first + index)
                    image = decode(animation)
                except Exception:
                    self.num_broken = self.num_frames - index
                    return
                duration = _duration(animation)
                yield TimedFrame(index, seconds, image, duration)
                seconds += duration


def _duration(animation: Image.Image) -> float:
    """How long the current frame is shown, in seconds; it must be decoded."""
    seconds = animation.info.get("duration", 0) / 1000
    return seconds if 0 < seconds < math.inf else _DEFAULT_SECONDS
