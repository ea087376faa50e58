"""Checks and completes labels for training, evaluation and tools alike.

They come from files in COCO's format, or from the records of datasets that have none.
"""

from querypose.data.datasets.labels.examination import Labels
from querypose.data.datasets.labels.numbering import ordered_ids
from querypose.data.datasets.labels.reading import examine_labels, read_categories, read_labels
from querypose.data.datasets.labels.registered import (
    examine_registered_labels,
    read_registered_labels,
    takes_areas_from_boxes,
)
from querypose.data.datasets.labels.rows import are_numbers, is_id, is_number

__all__ = [
    "Labels",
    "are_numbers",
    "examine_labels",
    "examine_registered_labels",
    "is_id",
    "is_number",
    "ordered_ids",
    "read_categories",
    "read_labels",
    "read_registered_labels",
    "takes_areas_from_boxes",
]
