"""The label files of registered datasets."""

from __future__ import annotations

from typing import Any

from detectron2.data import MetadataCatalog

from querypose.data.datasets.labels.examination import Labels
from querypose.data.datasets.labels.reading import examine_labels, read_labels
from querypose.skeleton import Skeleton


def read_registered_labels(name: str, *, areas_from_boxes: bool | None = None) -> Labels:
    """Reads the ``json_file`` of a dataset's metadata by :func:`read_labels`.

    Args:
        name: name of the dataset.
        areas_from_boxes: None follows :func:`takes_areas_from_boxes`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not in COCO's format, or contradicts itself or the skeleton.
    """
    options = _options(name)
    if areas_from_boxes is not None:
        options["areas_from_boxes"] = areas_from_boxes
    return read_labels(**options)


def examine_registered_labels(name: str) -> Labels:
    """Reads the ``json_file`` of a dataset's metadata by :func:`examine_labels`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it does not hold COCO's tables.
    """
    return examine_labels(**_options(name))


def takes_areas_from_boxes(name: str) -> bool:
    """Whether a dataset's benchmark computes areas from boxes, whatever the file says."""
    return MetadataCatalog.get(name).get("evaluator_type") == "crowdpose"


def _options(name: str) -> dict[str, Any]:
    metadata = MetadataCatalog.get(name)
    return {
        "json_file": metadata.json_file,
        "skeleton": Skeleton.from_metadata(metadata),
        "areas_from_boxes": takes_areas_from_boxes(name),
    }
