"""Ground-truth people of one image, for matcher and criterion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor


class PersonTargets(NamedTuple):
    """M people of one image.

    Attributes:
        boxes: (M, 4) xyxy in pixels of the network's input.
        classes: (M,) int64.
        keypoints: (M, K, 3): x, y in pixels and visibility (0 = unlabeled).
        size_xyxy: (4,) width, height, width, height of the unpadded image.
    """

    boxes: Tensor
    classes: Tensor
    keypoints: Tensor
    size_xyxy: Tensor

    @classmethod
    def from_instances(
        cls,
        instances: Instances,
        *,
        num_keypoints: int,
        num_classes: int,
        device: torch.device,
        source: str = "An image",
    ) -> PersonTargets:
        """Reads ``gt_boxes``, ``gt_classes`` and ``gt_keypoints`` of Detectron2 ``Instances``.

        Without ``gt_keypoints``, which Detectron2 leaves out in images without people, every
        keypoint is unlabeled.

        Args:
            instances: of one image.
            num_keypoints: K, of the model.
            num_classes: of the model.
            device: of the model.
            source: the image in errors.

        Raises:
            ValueError: the number of keypoints or a class does not fit the model.
        """
        height, width = instances.image_size
        boxes = instances.gt_boxes.tensor.to(device, torch.float32)
        classes = instances.gt_classes
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
            raise ValueError(
                f"{source} has people of the classes {classes.tolist()}, but the model's number "
                f"of classes is {num_classes}; set MODEL.QUERYPOSE.NUM_CLASSES to the dataset's."
            )
        if instances.has("gt_keypoints"):
            keypoints = instances.gt_keypoints.tensor.to(device, torch.float32)
        else:
            keypoints = boxes.new_zeros(len(boxes), num_keypoints, 3)
        if keypoints.shape[1:] != (num_keypoints, 3):
            raise ValueError(
                f"{source} has {keypoints.shape[1]} keypoints per person, the model has "
                f"{num_keypoints}; train on a dataset of the model's skeleton."
            )
        size_xyxy = boxes.new_tensor([width, height, width, height])
        return cls(boxes, classes.to(device), keypoints, size_xyxy)
