"""Image regions that dense methods ignore, because their people are not labeled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from querypose.data.annotations import box_xyxy, has_labeled_keypoint


def unlabeled_regions(
    annotations: Sequence[dict[str, Any]], image_size: tuple[int, int], file_name: str
) -> np.ndarray:
    """Marks crowds and persons without labeled keypoints.

    The region of an annotation is its segmentation, or its box if it has none.

    Args:
        annotations: in Detectron2's format.
        image_size: (height, width).
        file_name: for error messages.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: a segmentation is broken or has another size than the image.
    """
    marked = np.zeros(image_size, dtype=bool)
    for annotation in filter(is_unlabeled, annotations):
        if annotation.get("segmentation"):
            marked |= _segmentation(annotation["segmentation"], image_size, file_name)
        else:
            _mark_box(marked, annotation)
    return marked


def is_unlabeled(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is a region of people without labels."""
    return bool(annotation.get("iscrowd", 0)) or not has_labeled_keypoint(annotation)


def wrong_size(segmentation: Any, image_size: tuple[int, int]) -> str:
    """Says, as the end of a sentence, if a run-length code is of another image; else empty."""
    found = tuple(segmentation.get("size", ())) if isinstance(segmentation, dict) else ()
    if len(found) != 2 or found == image_size:
        return ""
    return (
        f"a segmentation of an image of {found[1]} x {found[0]}, but the image has "
        f"{image_size[1]} x {image_size[0]} pixels; correct it, or leave it out to ignore the box"
    )


def check_regions(records: Sequence[dict[str, Any]]) -> None:
    """Finds regions that :func:`unlabeled_regions` would refuse, before a training begins.

    Raises:
        ValueError: a segmentation has another size than its image.
    """
    for record in records:
        # A record need not say the size; then the image tells it when it is read.
        if record.get("height") is None or record.get("width") is None:
            continue
        image_size = record["height"], record["width"]
        for annotation in filter(is_unlabeled, record["annotations"]):
            _check_size(annotation.get("segmentation"), image_size, record["file_name"])


def _check_size(segmentation: Any, image_size: tuple[int, int], file_name: str) -> None:
    fault = wrong_size(segmentation, image_size)
    if fault:
        raise ValueError(f"{file_name}: a crowd or a person without labels has {fault}.")


def _segmentation(segmentation: Any, image_size: tuple[int, int], file_name: str) -> np.ndarray:
    _check_size(segmentation, image_size, file_name)
    try:
        rle = segmentation
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_size))
        elif isinstance(segmentation["counts"], list):
            rle = coco_mask.frPyObjects(segmentation, *segmentation["size"])
        return coco_mask.decode(rle).astype(bool)
    except Exception as error:  # pycocotools raises many types.
        raise ValueError(
            f"{file_name}: a segmentation is broken ({error!r:.100}); correct it or leave it out."
        ) from error


def _mark_box(marked: np.ndarray, annotation: dict[str, Any]) -> None:
    box = box_xyxy(annotation)
    left, top = (max(0, int(np.floor(value))) for value in box[:2])
    right, bottom = (max(0, int(np.ceil(value))) for value in box[2:])
    marked[top:bottom, left:right] = True
