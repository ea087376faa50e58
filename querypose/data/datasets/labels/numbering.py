"""Replaces ids that some COCO tool does not accept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from querypose.data.datasets.labels.rows import Row, is_id

# COCO's tools store ids as float64 and take a match with annotation 0 for no match.
_LEAST_IDS = {"images": 0, "categories": 0, "annotations": 1}
_ID_LIMIT = 2**53

RENUMBERED = "the id is missing, a string or out of range: it is replaced, except in results"
"""The log message for such rows."""


def ordered_ids(rows: Iterable[Row]) -> list[int | str]:
    """The ids of the rows that have one, in ascending order, strings after numbers."""
    ids = (row["id"] for row in rows if is_id(row.get("id")))
    return sorted(ids, key=lambda row_id: (isinstance(row_id, str), row_id))


def is_odd(row_id: Any, table: str) -> bool:
    """Whether some COCO tool does not accept an id."""
    return type(row_id) is not int or not _LEAST_IDS[table] <= row_id < _ID_LIMIT


def number_rows(rows: Sequence[Row], table: str) -> dict[int | str, int]:
    """Renumbers images or categories from 1, unless all their ids are accepted.

    Returns:
        Maps every old id to the new one; both ascend.
    """
    new_ids = {row_id: number for number, row_id in enumerate(ordered_ids(rows), start=1)}
    if not any(is_odd(row_id, table) for row_id in new_ids):
        return {row_id: row_id for row_id in new_ids if isinstance(row_id, int)}
    for row in rows:
        row["id"] = new_ids[row["id"]]
    return new_ids


def number_annotations(rows: Sequence[Row]) -> None:
    """Renumbers annotations from 1, unless all their ids are accepted. Nothing refers to them."""
    if any(is_odd(row.get("id"), "annotations") for row in rows):
        for number, row in enumerate(rows, start=1):
            row["id"] = number
