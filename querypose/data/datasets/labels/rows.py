"""Rows of a label file, and what the rules ask of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from querypose.skeleton import Skeleton

Row = dict[str, Any]

# Beyond it, numbers become infinite in the tensors that a model is trained with.
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


class Context(NamedTuple):
    """What the rows of a file are judged by.

    Attributes:
        skeleton: the dataset's keypoints.
        known_ids: for every table, the ids that its rows have.
        repeated_ids: for every table, the ids that several rows have.
        keypoint_names: as the first category lists them that lists any.
        holds_nan: whether NaN or an infinity stands anywhere in the file.
        areas_from_boxes: areas come from boxes, whatever the file says: CrowdPose's definition.
    """

    skeleton: Skeleton
    known_ids: Mapping[str, set[Any]]
    repeated_ids: Mapping[str, set[Any]]
    keypoint_names: Sequence[Any]
    holds_nan: bool
    areas_from_boxes: bool


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that is finite as float32; true and false are none."""
    return type(value) in (int, float) and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER


def are_numbers(values: Any, count: int) -> bool:
    """Whether a JSON value is a list of that many finite numbers."""
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def is_id(value: Any) -> bool:
    """Whether a row can be referred to by a JSON value."""
    return type(value) in (int, str)


def holds_nan(value: Any) -> bool:
    """Whether NaN or an infinity stands anywhere in a JSON value."""
    if isinstance(value, dict):
        return any(map(holds_nan, value.values()))
    if isinstance(value, list):
        return any(map(holds_nan, value))
    return isinstance(value, float) and not math.isfinite(value)
