"""COCO's tables from the records of datasets that have no label file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode, PolygonMasks
from pycocotools import mask as coco_mask

from querypose.data.datasets.labels.rows import Row, are_numbers

_IMAGE_FIELDS = ("file_name", "image_id", "height", "width")
PERSON_FIELDS = ("bbox", "bbox_mode", "category_id")
_BOX_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


class Tables(NamedTuple):
    """What records say, in COCO's format.

    Attributes:
        content: COCO's tables.
        row_names: what messages call the rows of a table.
        faults: records and annotations that have no row, each the end of a sentence.
    """

    content: dict[str, Any]
    row_names: dict[str, list[str]]
    faults: list[str]


def tables_of_records(records: Sequence[Mapping[str, Any]], metadata: Metadata) -> Tables:
    """Converts records in Detectron2's standard format; they are not changed.

    Like Detectron2's ``convert_to_coco_dict``, it takes a missing ``area`` from the segmentation.
    Unlike it, it keeps an ``area`` that is there, and leaves faulty values to the rules of label
    files. Keypoints become pixel indices.

    Args:
        records: of a dataset.
        metadata: of the dataset. Without ``thing_classes``, the classes are those that annotations
            have.

    Raises:
        ValueError: there is no record, or a class has no category id.
    """
    if not records:
        raise ValueError(
            f"{metadata.name}: the function that it is registered with gives no record; return one "
            "for every image."
        )
    category_ids = _category_ids(records, metadata)
    names = metadata.get("thing_classes") or [f"class {index}" for index in category_ids]
    images: dict[str, Row] = {}
    people: dict[str, Row] = {}
    faults = []
    for index, record in enumerate(records):
        name = record_name(index, record)
        missing = missing_fields(record, _IMAGE_FIELDS)
        if missing:
            faults.append(f"{name} {missing}")
            continue
        images[name] = _image(record)
        for number, annotation in enumerate(record.get("annotations") or ()):
            person_name = f"annotation {number} of {name}"
            fault = _fault(annotation, category_ids)
            if fault:
                faults.append(f"{person_name} {fault}")
            else:
                row = _person(annotation, category_ids)
                people[person_name] = row | {"id": len(people) + 1, "image_id": images[name]["id"]}
    categories = [
        {"id": category_ids[index], "name": name} for index, name in enumerate(_plain(names))
    ]
    return Tables(
        {
            "images": list(images.values()),
            "annotations": list(people.values()),
            "categories": categories,
        },
        {"images": list(images), "annotations": list(people)},
        faults,
    )


def record_name(index: int, record: Mapping[str, Any]) -> str:
    """What messages call a record."""
    return f"record {index} ({record.get('file_name', 'without file_name')})"


def _category_ids(records: Sequence[Mapping[str, Any]], metadata: Metadata) -> dict[int, Any]:
    """The category id of every class; classes count as ids where the metadata gives none."""
    used = [
        _plain(annotation.get("category_id"))
        for record in records
        for annotation in record.get("annotations") or ()
    ]
    names = metadata.get("thing_classes")
    if names:
        num_classes = len(names)
    else:
        num_classes = 1 + max((index for index in used if isinstance(index, int)), default=0)
    classes = metadata.get("thing_dataset_id_to_contiguous_id")
    if classes is None:
        return {index: index for index in range(num_classes)}
    category_ids = {index: category_id for category_id, index in classes.items()}
    missing = sorted(set(range(num_classes)) - category_ids.keys())
    if missing:
        raise ValueError(
            f"{metadata.name}: thing_dataset_id_to_contiguous_id in its metadata has no category "
            f"id for class {missing[0]} of {num_classes}; add it."
        )
    return category_ids


def missing_fields(row: Mapping[str, Any], fields: Sequence[str]) -> str:
    """Which fields a record or annotation lacks, as the end of a sentence; empty if none."""
    missing = [field for field in fields if row.get(field) is None]
    return f"lacks {' and '.join(missing)}; add what is missing" if missing else ""


def _fault(annotation: Mapping[str, Any], category_ids: Mapping[int, Any]) -> str:
    """What label files cannot have wrong, as the end of a sentence; empty if it is right."""
    missing = missing_fields(annotation, PERSON_FIELDS)
    if missing:
        return missing
    if annotation["bbox_mode"] not in _BOX_MODES:
        return f"has the bbox_mode {annotation['bbox_mode']!r}; write BoxMode.XYXY_ABS or XYWH_ABS"
    category_id = _plain(annotation["category_id"])
    if not isinstance(category_id, int) or category_id not in category_ids:
        return (
            f"has the category_id {category_id!r:.50}, but the classes in its dataset's metadata "
            f"are 0 to {max(category_ids)}; correct it"
        )
    return ""


def _image(record: Mapping[str, Any]) -> Row:
    image = {
        "id": _plain(record["image_id"]),
        "file_name": os.fspath(record["file_name"]),
        "height": _plain(record["height"]),
        "width": _plain(record["width"]),
    }
    # CrowdPose's evaluation asks for it.
    if "crowdIndex" in record:
        image["crowdIndex"] = _plain(record["crowdIndex"])
    return image


def _person(annotation: Mapping[str, Any], category_ids: Mapping[int, Any]) -> Row:
    person = {
        "category_id": category_ids[_plain(annotation["category_id"])],
        "bbox": _box_xywh(annotation),
        "iscrowd": _plain(annotation.get("iscrowd", 0)),
    }
    keypoints = _pixel_indices(annotation.get("keypoints"))
    if are_numbers(keypoints, len(keypoints or ())):
        person["num_keypoints"] = sum(flag > 0 for flag in keypoints[2::3])
    for field in ("num_keypoints", "area", "segmentation"):
        if annotation.get(field) is not None:
            person[field] = _plain(annotation[field])
    if "area" not in person and "segmentation" in person:
        person["area"] = _mask_area(person["segmentation"])
    return person | {"keypoints": keypoints}


def _mask_area(segmentation: Any) -> float | None:
    """The area of polygons or of a run-length code in pixels; None if it is neither."""
    try:
        if isinstance(segmentation, list):
            return float(PolygonMasks([segmentation]).area()[0])
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
        return float(coco_mask.area(segmentation))
    except (
        Exception
    ):  # Both libraries raise many types; the rules of label files tell what is wrong.
        return None


def _box_xywh(annotation: Mapping[str, Any]) -> Any:
    """The box as (left, top, width, height) in pixels; as it is where that is no box."""
    box = _plain(annotation["bbox"])
    if not are_numbers(box, 4) or annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        return box
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _pixel_indices(keypoints: Any) -> Any:
    """Continuous coordinates in a list or an array of any shape as pixel indices in a list.

    What is no list of numbers is returned as it is.
    """
    if keypoints is None:
        return None
    try:
        numbers = np.asarray(keypoints, dtype=float).reshape(-1).tolist()
    except (TypeError, ValueError):
        return _plain(keypoints)
    return [value if index % 3 == 2 else value - 0.5 for index, value in enumerate(numbers)]


def _plain(value: Any) -> Any:
    """A copy of lists, arrays and numbers of NumPy and PyTorch in JSON's types."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("ascii")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
