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
    for annotation in annotations:
        if not annotation.get("iscrowd", 0) and has_labeled_keypoint(annotation):
            continue
        if annotation.get("segmentation"):
            marked |= _segmentation(annotation["segmentation"], image_size, file_name)
        else:
            _mark_box(marked, annotation)
    return marked


def _segmentation(segmentation: Any, image_size: tuple[int, int], file_name: str) -> np.ndarray:
    try:
        rle = segmentation
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_size))
        elif isinstance(segmentation["counts"], list):
            rle = coco_mask.frPyObjects(segmentation, *segmentation["size"])
        mask = coco_mask.decode(rle)
    except Exception as error:  # pycocotools raises many types.
        raise ValueError(
            f"{file_name}: a segmentation is broken ({error!r:.100}); correct it or leave it out."
        ) from error
    if mask.shape != image_size:
        raise ValueError(
            f"{file_name}: a segmentation is of an image of {mask.shape[1]} x {mask.shape[0]}, "
            f"but the image has {image_size[1]} x {image_size[0]} pixels."
        )
    return mask.astype(bool)


def _mark_box(marked: np.ndarray, annotation: dict[str, Any]) -> None:
    box = box_xyxy(annotation)
    left, top = (max(0, int(np.floor(value))) for value in box[:2])
    right, bottom = (max(0, int(np.ceil(value))) for value in box[2:])
    marked[top:bottom, left:right] = True
