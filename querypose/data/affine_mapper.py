"""Maps dataset records to the training inputs of dense methods: random affine crops."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.structures import Boxes, Instances, Keypoints

from querypose.data.affine import RandomAffineCrop
from querypose.data.annotations import (
    box_xyxy,
    check_keypoints,
    has_labeled_keypoint,
    shared_skeleton,
)
from querypose.data.augmentation import build_photometric_augmentations, is_mirrored
from querypose.data.ignore_mask import unlabeled_regions
from querypose.data.image import read_image
from querypose.data.mapper_registry import MAPPER_REGISTRY
from querypose.oks import PERSON_AREA_PER_BOX_AREA
from querypose.skeleton import Skeleton

# Pixels per cell of a dense method's maps.
_STRIDE = 4


@MAPPER_REGISTRY.register()
class PoseAffineMapper:
    """Reads an image, crops a random square and transforms the annotations with it.

    Keypoints outside the crop stay labeled: centers and extents of persons depend on them.
    Crowds and persons without labeled keypoints are left out.

    Args:
        crop: draws the square.
        flip_probability: probability of mirroring the square.
        photometric: augmentations that change colors only.
        image_format: as ``INPUT.FORMAT``.
        skeleton: the dataset's keypoints.
        ignore_regions: mask out crowds and persons without labeled keypoints; otherwise they are
            background.
    """

    @configurable
    def __init__(
        self,
        *,
        crop: RandomAffineCrop,
        flip_probability: float,
        photometric: Sequence[T.Augmentation],
        image_format: str,
        skeleton: Skeleton,
        ignore_regions: bool,
    ) -> None:
        self.geometric = T.AugmentationList([crop, T.RandomFlip(flip_probability)])
        self.photometric = T.AugmentationList(photometric)
        self.image_format = image_format
        self.num_keypoints = skeleton.num_keypoints
        self.flip_indices = list(skeleton.flip_indices)
        self.ignore_regions = ignore_regions

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Reads ``INPUT``; the keypoints come from the datasets' metadata.

        Raises:
            ValueError: ``is_train`` is False, or a value is out of range.
        """
        if not is_train:
            raise ValueError(
                "PoseAffineMapper is for training; use QueryPoseDatasetMapper for test images."
            )
        node = cfg.INPUT.AFFINE
        if node.SIZE < 1 or node.SIZE % 32:
            raise ValueError(f"INPUT.AFFINE.SIZE must be a multiple of 32, got {node.SIZE}.")
        low, high = node.ZOOM
        if not 0 < low <= high:
            raise ValueError(
                f"INPUT.AFFINE.ZOOM must be [smallest, largest], got {list(node.ZOOM)}."
            )
        if cfg.INPUT.RANDOM_FLIP not in ("none", "horizontal"):
            raise ValueError(
                f"INPUT.RANDOM_FLIP is {cfg.INPUT.RANDOM_FLIP!r}, but this mapper flips "
                "'horizontal' or 'none'."
            )
        crop = RandomAffineCrop(
            size=node.SIZE, zoom=(low, high), degrees=node.DEGREES, shift=node.SHIFT
        )
        return {
            "crop": crop,
            "flip_probability": 0.0 if cfg.INPUT.RANDOM_FLIP == "none" else 0.5,
            "photometric": build_photometric_augmentations(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "skeleton": shared_skeleton(cfg.DATASETS.TRAIN),
            "ignore_regions": node.IGNORE_REGIONS,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one image.

        Args:
            dataset_dict: in Detectron2's standard format; not changed.

        Returns:
            The dict with ``image``, a (3, S, S) uint8 tensor; ``ignore_mask``, (S/4, S/4) float32,
            0 in ignored regions and outside the image, 1 elsewhere; and ``instances`` with
            ``gt_boxes``, ``gt_classes``, ``gt_keypoints``, ``gt_areas`` and ``gt_box_areas``, in
            pixels of the crop.

        Raises:
            FileNotFoundError: the image does not exist.
            ValueError: the image is broken, or an annotation does not fit the dataset.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        file_name = dataset_dict["file_name"]
        image = read_image(file_name, self.image_format)
        utils.check_image_size(dataset_dict, image)
        annotations = dataset_dict.pop("annotations", [])
        for annotation in annotations:
            check_keypoints(annotation, self.num_keypoints, file_name)
            _check_category(annotation, file_name)
        mask = np.full(image.shape[:2], 255, dtype=np.uint8)
        if self.ignore_regions:
            mask[unlabeled_regions(annotations, image.shape[:2], file_name)] = 0

        augmented = T.AugInput(image)
        transforms = self.geometric(augmented)
        size = augmented.image.shape[:2]
        self.photometric(augmented)
        pixels = np.ascontiguousarray(augmented.image.transpose(2, 0, 1))
        dataset_dict["image"] = torch.from_numpy(pixels)
        # Cell j lies on pixel 4j.
        cells = transforms.apply_image(mask)[::_STRIDE, ::_STRIDE] > 127
        dataset_dict["ignore_mask"] = torch.from_numpy(cells.astype(np.float32))
        dataset_dict["instances"] = self._instances(annotations, transforms, size)
        return dataset_dict

    def _instances(
        self,
        annotations: Sequence[dict[str, Any]],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        persons = [
            annotation
            for annotation in annotations
            if not annotation.get("iscrowd", 0) and has_labeled_keypoint(annotation)
        ]
        boxes_xyxy = np.array([box_xyxy(person) for person in persons]).reshape(-1, 4)
        box_areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
        areas = [
            person.get("area") or PERSON_AREA_PER_BOX_AREA * area
            for person, area in zip(persons, box_areas, strict=True)
        ]
        keypoints = np.array([person["keypoints"] for person in persons], dtype=float)
        keypoints = keypoints.reshape(-1, self.num_keypoints, 3)
        area_factor = transforms.transforms[0].area_factor
        return Instances(
            image_size,
            gt_boxes=Boxes(torch.from_numpy(transforms.apply_box(boxes_xyxy))),
            gt_classes=torch.tensor([int(p["category_id"]) for p in persons], dtype=torch.int64),
            gt_keypoints=Keypoints(self._transformed_keypoints(keypoints, transforms)),
            gt_areas=torch.tensor(areas, dtype=torch.float32) * area_factor,
            gt_box_areas=torch.from_numpy(box_areas).float() * area_factor,
        )

    def _transformed_keypoints(
        self, keypoints: np.ndarray, transforms: T.TransformList
    ) -> np.ndarray:
        """Transforms (N, K, 3) keypoints; unlike Detectron2's function it keeps those outside."""
        points = transforms.apply_coords(keypoints[..., :2].reshape(-1, 2))
        transformed = np.dstack([points.reshape(*keypoints.shape[:2], 2), keypoints[..., 2]])
        transformed[transformed[..., 2] == 0] = 0
        if is_mirrored(transforms):
            transformed = transformed[:, self.flip_indices]
        return transformed.astype(np.float32)


def _check_category(annotation: dict[str, Any], file_name: str) -> None:
    if annotation["category_id"] != 0:
        raise ValueError(
            f"{file_name}: a person has category {annotation['category_id']}, but the dense "
            "methods know one category; leave the others out of the dataset."
        )
