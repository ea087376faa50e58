"""Rows of a label file, and the predicates on their values that the rules use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from querypose.skeleton import Skeleton

Row = dict[str, Any]

# Larger numbers become infinite in training tensors.
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


class Context(NamedTuple):
    """What the rules know of a file besides the row.

    Attributes:
        skeleton: the dataset's keypoints.
        known_ids: the ids of every table's rows.
        image_sizes: (height, width) by image id, where the file has them.
        repeated_ids: the ids of every table that several rows have.
        keypoint_names: the keypoints of the first category that lists any.
        holds_nan: whether the file may contain NaN or infinity.
        areas_from_boxes: compute areas from boxes, whatever the file says; CrowdPose's definition.
    """

    skeleton: Skeleton
    known_ids: Mapping[str, set[Any]]
    image_sizes: Mapping[Any, tuple[int, int]]
    repeated_ids: Mapping[str, set[Any]]
    keypoint_names: Sequence[Any]
    holds_nan: bool
    areas_from_boxes: bool


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number, finite as float32; booleans are not numbers."""
    return type(value) in (int, float) and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER


def are_numbers(values: Any, count: int) -> bool:
    """Whether a JSON value is a list of ``count`` finite numbers."""
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def is_id(value: Any) -> bool:
    """Whether a JSON value can be an id: an integer or a string."""
    return type(value) in (int, str)


def holds_nan(value: Any) -> bool:
    """Whether a JSON value contains NaN or infinity at any depth."""
    if isinstance(value, dict):
        return any(map(holds_nan, value.values()))
    if isinstance(value, list):
        return any(map(holds_nan, value))
    return isinstance(value, float) and not math.isfinite(value)
