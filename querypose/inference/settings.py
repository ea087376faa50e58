"""Checks of what a predictor is set to."""

from __future__ import annotations

from querypose.data.image import CHANNEL_ORDERS


def check_arguments(image_format: str, confidence_threshold: float, batch_size: int) -> None:
    """Raises ValueError if one of them is out of range."""
    if image_format not in CHANNEL_ORDERS:
        raise ValueError(f"INPUT.FORMAT is one of {CHANNEL_ORDERS}, got {image_format!r}.")
    if not 0 <= confidence_threshold <= 1:
        raise ValueError(f"The confidence threshold is within 0..1, got {confidence_threshold}.")
    if batch_size < 1:
        raise ValueError(f"The batch size is at least 1, got {batch_size}.")


def check_sizes(min_size: int, max_size: int) -> None:
    """Raises ValueError if an image cannot be resized to these limits of its edges, in pixels."""
    if min_size < 0 or max_size < 1:
        raise ValueError(
            "The shortest edge of a resized image is at least 0 (INPUT.MIN_SIZE_TEST), the "
            f"longest at least 1 (INPUT.MAX_SIZE_TEST), got {min_size} and {max_size}."
        )
