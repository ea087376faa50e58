"""What mappers read from annotations in Detectron2's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from querypose.skeleton import Skeleton

Annotation = dict[str, Any]


def box_xyxy(annotation: Annotation) -> Sequence[float]:
    """The box as (left, top, right, bottom), in pixels."""
    return BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)


def count_keypoint_numbers(annotation: Annotation) -> int:
    """How many numbers the keypoints have; a list or an array may hold them."""
    keypoints = annotation.get("keypoints")
    return 0 if keypoints is None else np.size(keypoints)


def count_labeled_keypoints(annotation: Annotation) -> int:
    """How many keypoints have a visibility above 0; the numbers may be flat or (K, 3)."""
    if not count_keypoint_numbers(annotation):
        return 0
    return int((np.ravel(annotation["keypoints"])[2::3] > 0).sum())


def has_labeled_keypoint(annotation: Annotation) -> bool:
    """Whether any keypoint has a visibility above 0."""
    return count_labeled_keypoints(annotation) > 0


def check_keypoints(annotation: Annotation, num_keypoints: int, file_name: str) -> None:
    """Checks that an annotation has no keypoints, or all of them.

    Raises:
        ValueError: it has another number of keypoints.
    """
    numbers = count_keypoint_numbers(annotation)
    if numbers not in (0, 3 * num_keypoints):
        raise ValueError(
            f"{file_name}: a person has {numbers} keypoint numbers, not 3 x {num_keypoints}; "
            "check the annotations or the skeleton."
        )


def shared_skeleton(datasets: Sequence[str]) -> Skeleton:
    """The skeleton of several datasets, from their metadata.

    Raises:
        ValueError: there is no dataset, or their keypoints differ.
    """
    if not datasets:
        raise ValueError(
            "The mapper takes keypoints from the datasets' metadata: name a dataset in "
            "DATASETS.TRAIN, or in DATASETS.TEST where is_train is False."
        )
    skeletons = [Skeleton.from_metadata(MetadataCatalog.get(name)) for name in datasets]
    for name, skeleton in zip(datasets[1:], skeletons[1:], strict=True):
        if skeleton.keypoints != skeletons[0].keypoints:
            raise ValueError(
                f"{datasets[0]} and {name} have different keypoints; train on them one by one."
            )
    return skeletons[0]
