"""Labels on images, placed so that they do not hide each other."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PADDING = 3


def text_size(text: str, scale: float) -> tuple[int, int]:
    """(width, height) of a label with its background, in pixels."""
    (width, height), baseline = cv2.getTextSize(text, _FONT, scale, 1)
    return width + 2 * _PADDING, height + baseline + 2 * _PADDING


def draw_text(
    image: np.ndarray, text: str, top_left: tuple[int, int], scale: float, background: Color
) -> None:
    """Writes a label on an image, in black or white, whichever contrasts more."""
    width, height = text_size(text, scale)
    left, top = top_left
    cv2.rectangle(image, top_left, (left + width - 1, top + height - 1), background, cv2.FILLED)
    _, baseline = cv2.getTextSize(text, _FONT, scale, 1)
    luminance = float(np.dot(background, (0.299, 0.587, 0.114)))
    color = (0, 0, 0) if luminance > 128 else (255, 255, 255)
    origin = (left + _PADDING, top + height - _PADDING - baseline)
    cv2.putText(image, text, origin, _FONT, scale, color, 1, cv2.LINE_AA)


def place_label(
    box_xyxy: Sequence[float],
    label_size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    image_size: tuple[int, int],
) -> tuple[int, int]:
    """Finds a place beside a person's box where a label hides as little as possible of the others.

    Args:
        box_xyxy: of the person, in pixels.
        label_size: (width, height) in pixels.
        taken: xyxy boxes of the labels that are already placed.
        image_size: (height, width).

    Returns:
        (left, top) in pixels; the label lies within the image if it fits in at all.
    """
    x0, y0, x1, y1 = box_xyxy
    width, height = label_size
    candidates = np.array(
        [
            (x0, y0 - height),
            (x1 - width, y0 - height),
            (x0, y0),
            (x1 - width, y0),
            (x0, y1),
            (x1 - width, y1),
            (x0 - width, y0),
            (x1, y0),
            (x0, y1 - height),
            (x1 - width, y1 - height),
        ]
    )
    limits = np.maximum((image_size[1] - width, image_size[0] - height), 0)
    candidates = candidates.clip(0, limits).round().astype(int)
    if not taken:
        return tuple(candidates[0].tolist())
    others = np.asarray(taken)
    top_left = np.maximum(candidates[:, None], others[None, :, :2])
    bottom_right = np.minimum(candidates[:, None] + (width, height), others[None, :, 2:])
    covered = (bottom_right - top_left).clip(min=0).prod(axis=-1).sum(axis=-1)
    return tuple(candidates[int(covered.argmin())].tolist())
