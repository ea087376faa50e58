"""Where in an image a dense score means nothing: people are there whom nobody labeled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask


def unlabeled_regions(
    annotations: Sequence[dict[str, Any]], image_size: tuple[int, int], file_name: str
) -> np.ndarray:
    """Marks crowds and persons without any labeled keypoint.

    A region is the annotation's segmentation, or its box where there is none.

    Args:
        annotations: in Detectron2's format.
        image_size: (height, width).
        file_name: for messages.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: a segmentation is broken or of an image of another size.
    """
    marked = np.zeros(image_size, dtype=bool)
    for annotation in annotations:
        if not annotation.get("iscrowd", 0) and has_labeled_keypoint(annotation):
            continue
        if annotation.get("segmentation"):
            marked |= _segmentation(annotation["segmentation"], image_size, file_name)
        else:
            _mark_box(marked, annotation)
    return marked


def has_labeled_keypoint(annotation: dict[str, Any]) -> bool:
    """Whether any keypoint of an annotation, in Detectron2's format, has a visibility above 0."""
    keypoints = annotation.get("keypoints")
    return keypoints is not None and bool((np.asarray(keypoints).reshape(-1, 3)[:, 2] > 0).any())


def _segmentation(segmentation: Any, image_size: tuple[int, int], file_name: str) -> np.ndarray:
    try:
        rle = segmentation
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_size))
        elif isinstance(segmentation["counts"], list):
            rle = coco_mask.frPyObjects(segmentation, *segmentation["size"])
        mask = coco_mask.decode(rle)
    except Exception as error:  # pycocotools refuses in many ways.
        raise ValueError(f"{file_name}: a segmentation is broken ({error!r:.100}).") from error
    if mask.shape != image_size:
        raise ValueError(
            f"{file_name}: a segmentation is of an image of {mask.shape[1]} x {mask.shape[0]}, "
            f"but the image has {image_size[1]} x {image_size[0]} pixels."
        )
    return mask.astype(bool)


def _mark_box(marked: np.ndarray, annotation: dict[str, Any]) -> None:
    box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
    left, top = (max(0, int(np.floor(value))) for value in box[:2])
    right, bottom = (max(0, int(np.ceil(value))) for value in box[2:])
    marked[top:bottom, left:right] = True
