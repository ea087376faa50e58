"""A window on the screen, if OpenCV supports it."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

_TITLE = "QueryPose (q quits)"
_QUIT_KEYS = (ord("q"), 27)


class Window:
    """Shows images.

    Raises:
        ValueError: this OpenCV does not support windows, or this machine has no screen.
    """

    def __init__(self) -> None:
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise ValueError("--show needs a screen, and this terminal has none: use --output.")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise ValueError(
                "This OpenCV does not support windows: replace opencv-python-headless by "
                "opencv-python for --show, or use --output."
            ) from error

    def show(self, image: np.ndarray, wait: bool) -> bool:
        """Shows an RGB image.

        Args:
            image: (H, W, 3) uint8.
            wait: whether to wait for a key.

        Returns:
            False if the user pressed a key to quit.
        """
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return (cv2.waitKey(0 if wait else 1) & 0xFF) not in _QUIT_KEYS

    def close(self) -> None:
        """Closes the window."""
        cv2.destroyWindow(_TITLE)
