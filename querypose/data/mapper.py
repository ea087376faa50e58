"""Maps dataset records to a model's inputs, for training and testing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.structures import Instances, Keypoints

from querypose.data.annotations import check_keypoints, count_keypoint_numbers, shared_skeleton
from querypose.data.augmentation import (
    build_crop_augmentations,
    build_train_augmentations,
    is_mirrored,
)
from querypose.data.image import read_image
from querypose.data.mapper_registry import MAPPER_REGISTRY
from querypose.skeleton import Skeleton


@MAPPER_REGISTRY.register()
class QueryPoseDatasetMapper:
    """Reads an image, augments it and turns its annotations into ``Instances``.

    In training, with probability ``crop_probability``, a resize and a random crop (DETR's) come
    before the other augmentations; see :mod:`querypose.data.augmentation`.
    Crowd annotations are dropped. Keypoints that leave the image become unlabeled.

    Args:
        is_train: keep the annotations.
        image_format: as ``INPUT.FORMAT``.
        augmentations: applied to every image.
        crop_augmentations: applied before them to cropped images; empty never crops.
        skeleton: the dataset's keypoints.
        crop_probability: probability of cropping.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        image_format: str,
        augmentations: Sequence[T.Augmentation],
        crop_augmentations: Sequence[T.Augmentation],
        skeleton: Skeleton,
        crop_probability: float = 0.5,
    ) -> None:
        self.is_train = is_train
        self.image_format = image_format
        self.augmentations = T.AugmentationList(augmentations)
        self.cropped = T.AugmentationList([*crop_augmentations, *augmentations])
        self.crop_probability = crop_probability if crop_augmentations else 0.0
        self.num_keypoints = skeleton.num_keypoints
        self.flip_indices = np.array(skeleton.flip_indices)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Reads ``INPUT``; the keypoints come from the datasets' metadata."""
        augmentations = utils.build_augmentation(cfg, is_train=False)
        crop: list[T.Augmentation] = []
        if is_train:
            augmentations, crop = build_train_augmentations(cfg), build_crop_augmentations(cfg)
        datasets = cfg.DATASETS.TRAIN if is_train else cfg.DATASETS.TEST
        return {
            "is_train": is_train,
            "image_format": cfg.INPUT.FORMAT,
            "augmentations": augmentations,
            "crop_augmentations": crop,
            "skeleton": shared_skeleton(datasets),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one image.

        Args:
            dataset_dict: in Detectron2's standard format; not changed.

        Returns:
            The dict with ``image``, a (3, H, W) uint8 tensor, and in training ``instances`` with
            ``gt_boxes``, ``gt_classes`` and ``gt_keypoints``, in pixels of that image.

        Raises:
            FileNotFoundError: the image does not exist.
            ValueError: the image is broken, or an annotation does not fit the dataset.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = read_image(dataset_dict["file_name"], self.image_format)
        utils.check_image_size(dataset_dict, image)

        crops = self.crop_probability > 0 and np.random.rand() < self.crop_probability
        augmented = T.AugInput(image)
        transforms = (self.cropped if crops else self.augmentations)(augmented)
        image = augmented.image
        dataset_dict["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))

        annotations = dataset_dict.pop("annotations", None)
        if self.is_train and annotations is not None:
            dataset_dict["instances"] = self._instances(
                annotations, transforms, image.shape[:2], dataset_dict["file_name"]
            )
        return dataset_dict

    def _instances(
        self,
        annotations: Sequence[dict[str, Any]],
        transforms: T.TransformList,
        image_size: tuple[int, int],
        file_name: str,
    ) -> Instances:
        people = []
        # Detectron2 exchanges sides where an image is flipped horizontally alone.
        unexchanged = np.arange(self.num_keypoints)
        for annotation in annotations:
            if annotation.get("iscrowd", 0):
                continue
            check_keypoints(annotation, self.num_keypoints, file_name)
            annotation.pop("segmentation", None)
            if count_keypoint_numbers(annotation) == 0:
                annotation["keypoints"] = [0.0] * 3 * self.num_keypoints
            people.append(
                utils.transform_instance_annotations(
                    annotation, transforms, image_size, keypoint_hflip_indices=unexchanged
                )
            )
        # Detectron2 would omit the field for an image without people.
        keypoints = np.array([person.pop("keypoints") for person in people], dtype=np.float32)
        keypoints = keypoints.reshape(-1, self.num_keypoints, 3)
        if is_mirrored(transforms):
            keypoints = keypoints[:, self.flip_indices]
        instances = utils.annotations_to_instances(people, image_size)
        instances.gt_keypoints = Keypoints(keypoints)
        return utils.filter_empty_instances(instances)
