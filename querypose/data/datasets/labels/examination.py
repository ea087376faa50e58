"""Applies the rules to the content of a label file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.utils.logger import log_first_n

from querypose.data.datasets.labels.derived import DERIVED
from querypose.data.datasets.labels.numbering import (
    RENUMBERED,
    is_odd,
    number_annotations,
    number_rows,
)
from querypose.data.datasets.labels.refused import REFUSED, Refusal
from querypose.data.datasets.labels.rows import Context, Row, are_numbers, holds_nan, is_id
from querypose.skeleton import Skeleton

TABLES = {"images": "image", "categories": "category", "annotations": "annotation"}
"""COCO's tables, and what messages call a row of each."""

NamedRows = list[tuple[str, Row]]


@dataclass(frozen=True)
class Labels:
    """The valid rows of a label file, completed, with ids that every COCO tool accepts.

    The rows of a dataset without a label file come from its records.

    Attributes:
        json_file: path of the file, or the name of a dataset without one.
        content: COCO's tables and the file's other fields.
        image_ids: maps every image id of the file to its id in ``content``; both ascend.
        category_ids: the same for categories, in the order of the classes.
        annotation_names: maps every annotation id in ``content`` to what messages call it:
            "annotation" and the file's own id, or its place in the records.
        refusals: the file's faults, each the end of a sentence; faulty rows are left out.
        remarks: what was derived, each the end of a sentence.
    """

    json_file: str
    content: dict[str, Any]
    image_ids: Mapping[int | str, int]
    category_ids: Mapping[int | str, int]
    annotation_names: Mapping[int, str]
    refusals: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def classes(self) -> dict[int | str, int]:
        """The class, 0, 1, ..., of every category id of the file."""
        return {category_id: index for index, category_id in enumerate(self.category_ids)}

    @property
    def class_names(self) -> list[str]:
        """The category name of every class."""
        names = {category["id"]: category["name"] for category in self.content["categories"]}
        return [names[category_id] for category_id in self.category_ids.values()]

    def log_remarks(self) -> None:
        """Logs what was derived, once per process."""
        for remark in self.remarks:
            message = f"{self.json_file}: {remark}."
            log_first_n(logging.WARNING, message, name=__name__, key="message")

    def accepted(self) -> Labels:
        """These labels, if they have no faults; logs what was derived.

        Raises:
            ValueError: there is a fault.
        """
        if self.refusals:
            first, *others = self.refusals
            more = f" ({len(others)} more: querypose-check)" if others else ""
            raise ValueError(f"{self.json_file}: {first}{more}.")
        self.log_remarks()
        return self


def examine_content(
    content: dict[str, Any],
    json_file: str,
    skeleton: Skeleton,
    *,
    has_nan: bool = True,
    areas_from_boxes: bool = False,
    row_names: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """Checks, completes and renumbers COCO's tables in place.

    Args:
        content: the tables.
        json_file: the file they were read from, for messages.
        skeleton: the keypoints of their people.
        has_nan: whether they may contain NaN or infinity.
        areas_from_boxes: see :func:`read_labels`.
        row_names: by table, what messages call its rows; by default they are called by their ids.
    """
    context = _context(content, skeleton, has_nan, areas_from_boxes)
    refusals = [
        f"{key!r} holds NaN or an infinity; correct it or leave it out"
        for key, value in content.items()
        if has_nan and key not in TABLES and holds_nan(value)
    ]
    given = row_names or {}
    named = {table: _named(content[table], table, given.get(table)) for table in TABLES}
    for table in TABLES:
        named[table], faults = _refuse(named[table], REFUSED[table], context)
        refusals += faults
    named["annotations"] = _without_refused_references(named)
    remarks = [remark for table in TABLES for remark in _odd_ids(named[table], table)]
    remarks += _derive(named["annotations"], context)

    content |= {table: [row for _, row in rows] for table, rows in named.items()}
    number_annotations(content["annotations"])
    image_ids = number_rows(content["images"], "images")
    category_ids = number_rows(content["categories"], "categories")
    for annotation in content["annotations"]:
        annotation["image_id"] = image_ids[annotation["image_id"]]
        annotation["category_id"] = category_ids[annotation["category_id"]]
    return Labels(
        json_file=json_file,
        content=content,
        image_ids=image_ids,
        category_ids=category_ids,
        annotation_names={row["id"]: name for name, row in named["annotations"]},
        refusals=tuple(refusals),
        remarks=tuple(remarks),
    )


def _context(
    content: dict[str, Any], skeleton: Skeleton, has_nan: bool, areas_from_boxes: bool
) -> Context:
    ids = {
        table: Counter(row["id"] for row in content[table] if is_id(row.get("id")))
        for table in TABLES
    }
    keypoint_names = (category.get("keypoints") for category in content["categories"])
    return Context(
        skeleton=skeleton,
        known_ids={table: set(counts) for table, counts in ids.items()},
        image_sizes={
            row["id"]: (row["height"], row["width"])
            for row in content["images"]
            if is_id(row.get("id")) and are_numbers([row.get("height"), row.get("width")], 2)
        },
        repeated_ids={table: {i for i, n in ids[table].items() if n > 1} for table in TABLES},
        keypoint_names=next(filter(None, keypoint_names), []),
        holds_nan=has_nan,
        areas_from_boxes=areas_from_boxes,
    )


def _named(rows: Sequence[Row], table: str, names: Sequence[str] | None) -> NamedRows:
    """Pairs every row with its name in messages."""
    if names is not None:
        return list(zip(names, rows, strict=True))
    return [(_name(row, table, index), row) for index, row in enumerate(rows)]


def _name(row: Row, table: str, index: int) -> str:
    if is_id(row.get("id")):
        return f"{TABLES[table]} {row['id']!r:.50}"
    return f"number {index} of {table!r}"


def _refuse(
    rows: NamedRows, rules: Sequence[Refusal], context: Context
) -> tuple[NamedRows, list[str]]:
    """Returns the valid rows, and a message for every other row."""
    valid, refusals = [], []
    for name, row in rows:
        fault = next(filter(None, (rule(row, context) for rule in rules)), "")
        if fault:
            refusals.append(f"{name} {fault}")
        else:
            valid.append((name, row))
    return valid, list(dict.fromkeys(refusals))


def _without_refused_references(named: Mapping[str, NamedRows]) -> NamedRows:
    """The annotations whose image and category were not refused."""
    images, categories = ({row["id"] for _, row in named[key]} for key in ("images", "categories"))
    return [
        (name, row)
        for name, row in named["annotations"]
        if row["image_id"] in images and row["category_id"] in categories
    ]


def _derive(annotations: NamedRows, context: Context) -> list[str]:
    """Completes annotations; returns a remark for every rule that changed any."""
    changed: dict[str, list[str]] = {message: [] for message in DERIVED}
    for name, annotation in annotations:
        for message, rule in DERIVED.items():
            if rule(annotation, context):
                changed[message].append(name)
    return [
        _remark(message, names, annotations, "annotations")
        for message, names in changed.items()
        if names
    ]


def _odd_ids(rows: NamedRows, table: str) -> list[str]:
    odd = [name for name, row in rows if is_odd(row.get("id"), table)]
    return [_remark(RENUMBERED, odd, rows, table)] if odd else []


def _remark(message: str, names: Sequence[str], rows: NamedRows, table: str) -> str:
    return f"{message} ({len(names)} of {len(rows)} {table}, {names[0]} for one)"
