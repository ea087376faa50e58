"""Refuses answers of a model that has diverged, before somebody takes them for "nobody is here"."""

from __future__ import annotations

from torch import Tensor


def refuse_infinite(what: str, *tensors: Tensor) -> None:
    """Checks that all numbers are finite; not for export, since it looks at values.

    Args:
        what: names the numbers in the error.
        tensors: of any shapes, on one device.

    Raises:
        FloatingPointError: a number is NaN or infinite.
    """
    first, *others = (tensor.isfinite().all() for tensor in tensors)
    # One look, since every one waits for the device.
    for finite in others:
        first = first & finite
    if not first:
        raise FloatingPointError(
            f"The model's {what} are NaN or infinite: use weights from a training that has not "
            "diverged, images with finite pixels, and float32 if half precision overflows."
        )
