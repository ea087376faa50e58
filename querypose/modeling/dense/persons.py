"""Ground-truth persons of one image, in cells of the output map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from querypose.modeling.dense.cells import is_in_map, map_size, pixels_to_cells


class LabeledPersons(NamedTuple):
    """N persons of one image.

    Attributes:
        keypoints: (N, K, 2), x and y in cells; they may lie outside the image.
        labeled: (N, K) bool.
        in_map: (N, K) bool, which of the labeled keypoints are within the image.
        areas: (N,), in square pixels of the network's input.
        size: height and width, in cells, of the image's own part of the padded map.
    """

    keypoints: Tensor
    labeled: Tensor
    in_map: Tensor
    areas: Tensor
    size: tuple[int, int]

    @classmethod
    def from_instances(
        cls, instances: Instances, *, num_keypoints: int, area_field: str, device: torch.device
    ) -> LabeledPersons:
        """Reads ``gt_keypoints``, in pixels of the network's input, and the persons' areas.

        Args:
            instances: of one image.
            num_keypoints: K, of the model.
            area_field: "gt_areas" or "gt_box_areas".
            device: of the model.

        Raises:
            ValueError: the areas are missing, or the keypoint count is not the model's.
        """
        size = map_size(instances.image_size)
        if not instances.has("gt_keypoints") or len(instances) == 0:
            keypoints, areas = torch.zeros(0, num_keypoints, 3), torch.zeros(0)
        else:
            if not instances.has(area_field):
                raise ValueError(
                    f"The training data have no {area_field}; let PoseAffineMapper map them."
                )
            keypoints, areas = instances.gt_keypoints.tensor, instances.get(area_field)
        if keypoints.shape[1:] != (num_keypoints, 3):
            raise ValueError(
                f"The data have {keypoints.shape[1]} keypoints per person, the model has "
                f"{num_keypoints}; train on a dataset of the model's skeleton."
            )
        keypoints = keypoints.to(device, torch.float32)
        places, labeled = pixels_to_cells(keypoints[..., :2]), keypoints[..., 2] > 0
        in_map = labeled & is_in_map(places, size)
        return cls(places, labeled, in_map, areas.to(device, torch.float32), size)

    def centers(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Means of labeled keypoints.

        Args:
            keypoints: (K,) bool, those that count.

        Returns:
            (N, 2) in cells, and whether a person has any such keypoint, (N,) bool.
        """
        counted = self.labeled & keypoints
        counts = counted.sum(dim=1)
        sums = (self.keypoints * counted[..., None]).sum(dim=1)
        return sums / counts.clamp(min=1)[:, None], counts > 0


def labeled_persons(
    batched_inputs: Sequence[dict[str, Any]],
    *,
    num_keypoints: int,
    area_field: str,
    device: torch.device,
) -> list[LabeledPersons]:
    """The persons of each image; see :meth:`LabeledPersons.from_instances`."""
    return [
        LabeledPersons.from_instances(
            given["instances"], num_keypoints=num_keypoints, area_field=area_field, device=device
        )
        for given in batched_inputs
    ]


def padded_ignore_masks(
    batched_inputs: list[dict[str, Any]], size: tuple[int, int], device: torch.device
) -> Tensor:
    """The inputs' ``ignore_mask``, 1 where the losses count, as one (B, H, W) float32 tensor.

    An image without a mask counts everywhere; what is padded never does.

    Raises:
        ValueError: a mask is not of the size of its image's map.
    """
    masks = []
    for given in batched_inputs:
        own_size = map_size(tuple(given["image"].shape[-2:]))
        mask = given.get("ignore_mask", torch.ones(own_size))
        if tuple(mask.shape) != own_size:
            raise ValueError(
                f"{given.get('file_name', 'An image')} has an ignore_mask of {tuple(mask.shape)}; "
                f"its output map is of {own_size}."
            )
        height, width = own_size
        mask = mask.to(device, torch.float32)
        masks.append(F.pad(mask, (0, size[1] - width, 0, size[0] - height)))
    return torch.stack(masks)
