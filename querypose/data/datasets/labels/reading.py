"""Reads label files in COCO's format."""

from __future__ import annotations

import json
from typing import Any

from detectron2.utils.file_io import PathManager

from querypose.data.datasets.labels.examination import TABLES, Labels, examine_content
from querypose.data.datasets.labels.rows import Row
from querypose.skeleton import Skeleton


def read_labels(json_file: str, skeleton: Skeleton, *, areas_from_boxes: bool = False) -> Labels:
    """Reads a label file and logs what was derived.

    Args:
        json_file: in COCO's format; not changed.
        skeleton: the keypoints of its people.
        areas_from_boxes: compute areas from boxes, whatever the file says; CrowdPose's definition.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not in COCO's format, or contradicts itself.
    """
    return examine_labels(json_file, skeleton, areas_from_boxes=areas_from_boxes).accepted()


def examine_labels(json_file: str, skeleton: Skeleton, *, areas_from_boxes: bool = False) -> Labels:
    """Like :func:`read_labels`, but returns all faults instead of raising the first; logs nothing.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it does not hold COCO's tables.
    """
    content, has_nan = _read_tables(json_file)
    options = {"has_nan": has_nan, "areas_from_boxes": areas_from_boxes}
    try:
        return examine_content(content, json_file, skeleton, **options)
    except RecursionError as error:
        raise ValueError(f"{json_file} is nested too deeply for a label file.") from error


def read_categories(json_file: str) -> list[Row]:
    """The categories of a label file, unchecked.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it does not hold COCO's tables.
    """
    return _read_tables(json_file)[0]["categories"]


def _read_tables(json_file: str) -> tuple[dict[str, Any], bool]:
    """The content of a label file, and whether it contains NaN or infinity."""
    constants: list[str] = []

    def constant(text: str) -> float:
        constants.append(text)
        return float(text)

    try:
        with PathManager.open(json_file) as file:
            content = json.load(file, parse_constant=constant)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"There is no annotation file {json_file}.") from error
    except OSError as error:
        raise OSError(f"{json_file} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    wrong = _wrong_tables(content)
    if wrong:
        raise ValueError(f"{json_file} is not in COCO's format: {wrong}.")
    return content, bool(constants)


def _wrong_tables(content: Any) -> str:
    missing = sorted(TABLES.keys() - content) if isinstance(content, dict) else sorted(TABLES)
    if missing:
        return f"it lacks {missing}"
    for table in TABLES:
        rows = content[table]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return f"{table!r} is no list of objects"
        if not rows and table != "annotations":
            return f"{table!r} is empty"
    return ""
