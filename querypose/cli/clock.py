"""Times of the frames of a video."""

from __future__ import annotations

import math

# Stamps that fall by more seconds start again; frames out of order are closer.
_LEAST_FALL = 1.0


class FrameClock:
    """Times frames by the stamps of the decoder, or by the frame rate if the stamps are invalid.

    Some containers and decoders give no stamps, or the same one for all frames; in files that were
    joined, the stamps start again. A stamp is valid if it is finite and later than all before it,
    or if it follows that of the frame before, where the stamps started again. Frames after the last
    valid stamp are one frame interval apart. Times never decrease.

    Attributes:
        longest_gap: longest time between two frames so far, in seconds; at least one frame
            interval.

    Args:
        frame_rate: frames a second.
    """

    def __init__(self, frame_rate: float) -> None:
        self._interval = 1 / frame_rate
        self._known_index = 0
        self._known_seconds = 0.0
        self._known_stamp = 0.0
        self._previous_stamp = math.inf
        self._first_stamp: float | None = None
        # What is added to stamps that started again.
        self._offset = 0.0
        self._seconds = 0.0
        self.longest_gap = self._interval

    def seconds(self, index: int, stamp: float) -> float:
        """The time of a frame since the start of the video.

        Args:
            index: of the frame; must increase from call to call.
            stamp: of the decoder, in seconds.
        """
        if math.isfinite(stamp) and self._first_stamp is None:
            self._first_stamp = stamp
        if self._has_started_again() and self._previous_stamp < stamp <= self._known_stamp:
            self._offset = self._seconds - self._previous_stamp
            self._known_stamp = self._previous_stamp
        if math.isfinite(stamp) and stamp > self._known_stamp:
            self._known_index, self._known_stamp = index, stamp
            self._known_seconds = stamp + self._offset
        self._previous_stamp = stamp if math.isfinite(stamp) else math.inf
        counted = self._known_seconds + (index - self._known_index) * self._interval
        self.longest_gap = max(self.longest_gap, counted - self._seconds)
        self._seconds = max(self._seconds, counted)
        return self._seconds

    def _has_started_again(self) -> bool:
        """Whether the stamp of the frame before is that of a start, not of a frame out of order."""
        if self._first_stamp is None:
            return False
        fallen = self._known_stamp - self._previous_stamp
        return self._previous_stamp <= self._first_stamp or fallen > _LEAST_FALL

    @property
    def end(self) -> float:
        """The latest time when the video can have ended: one longest gap after the last frame."""
        return self._seconds + self.longest_gap
