"""The labels of registered datasets, from their label files or their records."""

from __future__ import annotations

import dataclasses

from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.data.datasets.labels.examination import Labels, examine_content
from querypose.data.datasets.labels.from_records import tables_of_records
from querypose.data.datasets.labels.reading import examine_labels
from querypose.skeleton import Skeleton


def read_registered_labels(name: str, *, areas_from_boxes: bool | None = None) -> Labels:
    """Reads the labels of a dataset and logs what was derived.

    They are those of the ``json_file`` in its metadata, else of the records that the function gives
    with which the dataset is registered. The records are not changed, and nothing is kept of them.

    Args:
        name: name of the dataset.
        areas_from_boxes: None follows :func:`takes_areas_from_boxes`.

    Raises:
        FileNotFoundError: the label file does not exist.
        ValueError: it is not in COCO's format, or the labels contradict themselves or the metadata.
    """
    return examine_registered_labels(name, areas_from_boxes=areas_from_boxes).accepted()


def examine_registered_labels(name: str, *, areas_from_boxes: bool | None = None) -> Labels:
    """Like :func:`read_registered_labels`, but returns all faults of rows; logs nothing.

    Raises:
        FileNotFoundError: the label file does not exist.
        ValueError: it does not hold COCO's tables, there are no records, or the metadata lacks
            keypoints or category ids.
    """
    metadata = MetadataCatalog.get(name)
    skeleton = Skeleton.from_metadata(metadata)
    if areas_from_boxes is None:
        areas_from_boxes = takes_areas_from_boxes(name)
    if metadata.get("json_file"):
        json_file = str(metadata.json_file)
        return examine_labels(json_file, skeleton, areas_from_boxes=areas_from_boxes)
    tables = tables_of_records(list(DatasetCatalog.get(name)), metadata)
    labels = examine_content(
        tables.content,
        name,
        skeleton,
        areas_from_boxes=areas_from_boxes,
        row_names=tables.row_names,
    )
    return dataclasses.replace(labels, refusals=(*tables.faults, *labels.refusals))


def takes_areas_from_boxes(name: str) -> bool:
    """Whether a dataset's benchmark computes areas from boxes, whatever the file says."""
    return MetadataCatalog.get(name).get("evaluator_type") == "crowdpose"
