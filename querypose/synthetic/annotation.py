"""What is known about the people of a scene, as Detectron2 annotations."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from querypose.skeleton import COCO_SKELETON
from querypose.synthetic.keypoints import Keypoint
from querypose.synthetic.labels import LABELS_PER_PERSON, label_people
from querypose.synthetic.scene import Scene

MIN_VISIBLE_PIXELS = 48
MIN_VISIBLE_SHARE = 0.08
"""A person who shows less than this share of the silhouette inside the image is not annotated."""


def annotate(scene: Scene) -> list[dict[str, Any]]:
    """The visible people of a scene as Detectron2 annotations.

    Returns:
        One dictionary a person with ``bbox`` (XYXY pixels, tight around the visible pixels),
        ``bbox_mode``, ``category_id`` 0, ``iscrowd`` 0, ``area`` (number of visible pixels),
        ``segmentation`` (compressed RLE of the visible pixels) and ``keypoints``: 17 times x, y, v
        in COCO's order. x and y are continuous (the first pixel's center is 0.5, 0.5); v is 2
        visible, 1 hidden by the person, somebody else or an object, 0 outside the image (then
        x = y = 0.5, which is COCO's 0, 0).
    """
    labels, drawings, full_areas = label_people(scene)
    # COCO's run lengths go down the columns: transposed once, no mask below needs a copy.
    owners = cv2.transpose(labels) // LABELS_PER_PERSON
    annotations = []
    for slot, (drawing, full_area) in enumerate(zip(drawings, full_areas, strict=True), start=1):
        visible = (owners == slot).view(np.uint8)
        area = cv2.countNonZero(visible)
        if area < max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * full_area):
            continue
        annotations.append(
            {
                "bbox": _tight_box(visible),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "area": area,
                "segmentation": _run_lengths(visible),
                "keypoints": _flat_keypoints(drawing.keypoints, labels, slot),
            }
        )
    return annotations


def _tight_box(transposed_mask: np.ndarray) -> list[float]:
    """(W, H) uint8 mask -> left, top, right, bottom in pixels."""
    top, left, height, width = cv2.boundingRect(transposed_mask)
    return [float(left), float(top), float(left + width), float(top + height)]


def _run_lengths(transposed_mask: np.ndarray) -> dict[str, Any]:
    """(W, H) uint8 mask -> COCO's compressed RLE."""
    encoded = mask_util.encode(transposed_mask.T)
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def _flat_keypoints(keypoints: dict[str, Keypoint], labels: np.ndarray, slot: int) -> list[float]:
    """x, y, v of every keypoint in COCO's order."""
    height, width = labels.shape
    flat: list[float] = []
    for name in COCO_SKELETON.keypoints:
        keypoint = keypoints[name]
        if not (0 <= keypoint.x < width and 0 <= keypoint.y < height):
            flat += (0.5, 0.5, 0)
            continue
        owner, part = divmod(int(labels[int(keypoint.y), int(keypoint.x)]), LABELS_PER_PERSON)
        visible = owner == slot and part in keypoint.shown_by
        flat += (keypoint.x, keypoint.y, 2 if visible else 1)
    return flat
