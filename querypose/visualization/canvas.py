"""The image that is drawn on, in continuous pixel coordinates."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.utils.visualizer import VisImage
from PIL import Image

from querypose.visualization.labels import Color

# OpenCV takes fractions of a pixel as integers with this many fraction bits.
_FRACTION_BITS = 4
# The golden ratio of the color circle keeps any number of consecutive colors apart.
_HUE_STEP = 0.618034


def person_color(index: int) -> Color:
    """A bright RGB color (0..255) for a person or a part; consecutive indices differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((0.12 + index * _HUE_STEP) % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


class OpenCVImage(VisImage):
    """Detectron2's output image, held as an array that OpenCV draws on.

    Points are (x, y) in continuous coordinates, widths and radii in pixels, colors RGB.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
    """

    def _setup_figure(self, img: np.ndarray) -> None:
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Replaces the drawing by an RGB image (H, W, 3)."""
        self.pixels = np.array(img, dtype=np.uint8, order="C")

    def save(self, filepath: str) -> None:
        """Writes the image in the format of the suffix."""
        Image.fromarray(self.pixels).save(filepath)

    def get_image(self) -> np.ndarray:
        """The drawn image, (H, W, 3) uint8 RGB."""
        return self.pixels

    def draw_box(self, box_xyxy: np.ndarray, color: Color, width: int) -> None:
        """Draws the border of a box; its corner pixels are the first and last that it covers."""
        x0, y0, x1, y1 = box_xyxy.round().astype(int).tolist()
        cv2.rectangle(self.pixels, (x0, y0), (x1 - 1, y1 - 1), color, max(1, width))

    def draw_line(
        self, start: Sequence[float], end: Sequence[float], color: Color, width: int
    ) -> None:
        """Draws a line with round ends."""
        ends = _fixed_point(start), _fixed_point(end)
        cv2.line(self.pixels, *ends, color, width, cv2.LINE_AA, _FRACTION_BITS)

    def draw_disc(self, center: Sequence[float], radius: float, color: Color) -> None:
        """Draws a filled circle."""
        radius = int(radius * 2**_FRACTION_BITS)
        cv2.circle(
            self.pixels,
            _fixed_point(center),
            radius,
            color,
            cv2.FILLED,
            cv2.LINE_AA,
            _FRACTION_BITS,
        )

    def draw_hull(self, points: np.ndarray, color: Color, rim: int) -> None:
        """Fills the convex hull of (n, 2) points and a rim of this width around it."""
        fixed = np.array([_fixed_point(point) for point in points.tolist()], np.int32)
        hull = cv2.convexHull(fixed)
        cv2.fillPoly(self.pixels, [hull], color, cv2.LINE_AA, _FRACTION_BITS)
        cv2.polylines(self.pixels, [hull], True, color, rim, cv2.LINE_AA, _FRACTION_BITS)


def _fixed_point(point: Sequence[float]) -> tuple[int, int]:
    """Converts continuous coordinates to OpenCV's, whose whole numbers are pixel centers."""
    # OpenCV's 32-bit arithmetic overflows far outside the image, where nothing is drawn anyway.
    limit = 2**15
    x, y = (round((min(max(value, -limit), limit) - 0.5) * 2**_FRACTION_BITS) for value in point)
    return x, y
