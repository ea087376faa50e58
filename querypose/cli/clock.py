"""When the frames of a stream are due."""

from __future__ import annotations

import math


class FrameClock:
    """Times frames by the decoder's stamps, and by the frame rate where these say nothing.

    Some containers and decoders give no stamps, the same for all frames or, where files were
    joined, ones that start anew. A stamp counts if it is finite and later than those before it;
    from the last such frame on, others are one frame interval apart. Times never fall.

    Attributes:
        longest_gap: between two frames so far, in seconds; at least one frame interval.

    Args:
        frame_rate: frames a second.
    """

    def __init__(self, frame_rate: float) -> None:
        self._interval = 1 / frame_rate
        self._known_index = 0
        self._known_seconds = 0.0
        self._seconds = 0.0
        self.longest_gap = self._interval

    def seconds(self, index: int, stamp: float) -> float:
        """The time of a frame since the stream's start.

        Args:
            index: of the frame, rising from call to call.
            stamp: of the decoder, in seconds.
        """
        if math.isfinite(stamp) and stamp > self._known_seconds:
            self._known_index, self._known_seconds = index, stamp
        counted = self._known_seconds + (index - self._known_index) * self._interval
        self.longest_gap = max(self.longest_gap, counted - self._seconds)
        self._seconds = max(self._seconds, counted)
        return self._seconds

    @property
    def end(self) -> float:
        """When the stream may have ended, if its last frame was shown as long as any other."""
        return self._seconds + self.longest_gap
