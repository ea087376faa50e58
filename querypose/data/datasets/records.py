"""The records of registered datasets, with everything that their label files say."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, print_instances_class_histogram
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.data.detection_utils import check_metadata_consistency

from querypose.data.annotations import count_labeled_keypoints
from querypose.data.datasets.coco import load_coco_keypoints
from querypose.data.datasets.labels.from_records import (
    PERSON_FIELDS,
    missing_fields,
    record_name,
)
from querypose.skeleton import Skeleton

Record = dict[str, Any]


def load_records(name: str) -> list[Record]:
    """Reads a dataset in Detectron2's standard format.

    Where the metadata has ``json_file``, ``image_root`` and ``keypoint_names``, the label file is
    read by :func:`load_coco_keypoints`, whoever registered the dataset: Detectron2's own COCO
    loader drops every annotation's ``area`` and checks little. Other datasets are read by the
    function that they are registered with. ``file_name`` is text in every record.

    Raises:
        FileNotFoundError: the label file does not exist.
        ValueError: the label file contradicts itself or the metadata.
    """
    metadata = MetadataCatalog.get(name)
    if not all(metadata.get(key) for key in ("json_file", "image_root", "keypoint_names")):
        return [_with_text_path(record) for record in DatasetCatalog.get(name)]
    loader = str(getattr(DatasetCatalog[name], "__module__", None))
    if not loader.startswith(("detectron2.", "querypose.")):
        logging.getLogger(__name__).warning(
            "%r is read from the json_file of its metadata (%s), not by the function of %s that it "
            "is registered with; leave image_root out of the metadata to use that function.",
            name,
            metadata.json_file,
            loader,
        )
    skeleton = Skeleton.from_metadata(metadata)
    return load_coco_keypoints(str(metadata.json_file), str(metadata.image_root), name, skeleton)


def load_training_records(
    names: Sequence[str], *, filter_empty: bool, min_keypoints: int
) -> list[Record]:
    """Reads and filters training sets, as Detectron2's ``get_detection_dataset_dicts`` does.

    Args:
        names: the datasets, in order.
        filter_empty: leave out images without annotations other than crowds.
        min_keypoints: leave out images with fewer labeled keypoints; 0 keeps all.

    Raises:
        FileNotFoundError: a label file does not exist.
        ValueError: a label file contradicts itself or the metadata, a record lacks a field, a
            category has no class, the datasets have different classes, or no image is left.
    """
    records = list(itertools.chain.from_iterable(map(_load_labeled_records, names)))
    if filter_empty:
        records = filter_images_with_only_crowd_annotations(records)
    if min_keypoints > 0:
        records = _with_enough_keypoints(records, min_keypoints)
    classes = [MetadataCatalog.get(name).get("thing_classes") for name in names]
    if records and all(classes):
        check_metadata_consistency("thing_classes", names)
        _log_class_histogram(records, classes[0])
    if not records:
        raise ValueError(
            f"DATASETS.TRAIN has no image to train on: label people in {' or '.join(names)}."
        )
    return records


def _load_labeled_records(name: str) -> list[Record]:
    records = load_records(name)
    for index, record in enumerate(records):
        lacks = missing_fields(record, ("file_name", "annotations"))
        if lacks:
            raise ValueError(f"{name}: {record_name(index, record)} {lacks}.")
        for number, annotation in enumerate(record["annotations"]):
            # Of a crowd, at most the region is read.
            is_region = annotation.get("iscrowd", 0) and annotation.get("segmentation")
            needed = ("category_id",) if is_region else PERSON_FIELDS
            lacks = missing_fields(annotation, needed)
            if lacks:
                raise ValueError(
                    f"{name}: annotation {number} of {record_name(index, record)} {lacks}."
                )
    return records


def _with_enough_keypoints(records: list[Record], least: int) -> list[Record]:
    """Does what Detectron2's filter does, which reads flat keypoints alone and no None."""
    kept = [
        record
        for record in records
        if sum(map(count_labeled_keypoints, record["annotations"])) >= least
    ]
    logging.getLogger(__name__).info(
        "Removed %d images with fewer than %d keypoints.", len(records) - len(kept), least
    )
    return kept


def _with_text_path(record: Record) -> Record:
    """Detectron2 asks for text, but reads images of a ``pathlib.Path``, too; messages do not."""
    if isinstance(record.get("file_name"), os.PathLike):
        return record | {"file_name": os.fspath(record["file_name"])}
    return record


def _log_class_histogram(records: list[Record], classes: Sequence[str]) -> None:
    try:
        print_instances_class_histogram(records, classes)
    except AssertionError as error:
        raise ValueError(
            f"DATASETS.TRAIN has an annotation of no class: {error}; correct its category_id."
        ) from error
