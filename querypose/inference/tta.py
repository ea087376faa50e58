"""Test-time augmentation: merges the people of several views of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import TransformList
from detectron2.modeling import DatasetMapperTTA
from detectron2.structures import Boxes, Instances
from torch import nn

from querypose.data.augmentation import is_mirrored
from querypose.inference.view_merging import merge_views
from querypose.modeling.pose_model import skeleton_from_config
from querypose.skeleton import Skeleton


class PoseModelWithTTA(nn.Module):
    """A pose model with test-time augmentation, as Detectron2's ``GeneralizedRCNNWithTTA``.

    The people of all views are merged, see :func:`querypose.inference.view_merging.merge_views`.
    Built from a config, ``PoseModelWithTTA(cfg, model)`` takes the views from ``TEST.AUG``.

    Args:
        model: has the interface of :class:`querypose.modeling.pose_model.PoseModel`.
        tta_mapper: turns one input of the model into several, each with its ``transforms``.
        skeleton: says which keypoints a horizontal flip exchanges.
    """

    @configurable
    def __init__(
        self, *, model: nn.Module, tta_mapper: DatasetMapperTTA, skeleton: Skeleton
    ) -> None:
        super().__init__()
        self.model = model
        self.tta_mapper = tta_mapper
        self.skeleton = skeleton

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Reads ``TEST.AUG``, see :func:`build_tta_mapper`, and the skeleton."""
        return {
            "model": model,
            "tta_mapper": build_tta_mapper(cfg),
            "skeleton": skeleton_from_config(cfg),
        }

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Predicts like :meth:`querypose.modeling.pose_model.PoseModel.forward`.

        ``score_threshold`` applies to the merged score.

        Raises:
            ValueError: attention or maps are asked for, which belong to one view.
        """
        for image_input in batched_inputs:
            if image_input.get("return_attention") or image_input.get("return_maps"):
                raise ValueError(
                    "Attention and maps belong to one view of an image: set TEST.AUG.ENABLED False "
                    "to see them."
                )
        inputs = [_with_size(image_input) for image_input in batched_inputs]
        people_by_view: list[list[Instances]] = [[] for _ in inputs]
        # A batch holds one view of every image, so that images of the same size share a batch.
        for views in zip(*map(self.tta_mapper, inputs), strict=True):
            # The output size is that of the view.
            outputs = self.model([_with_size({"image": view["image"]}) for view in views])
            for people, output, view, image_input in zip(
                people_by_view, outputs, views, inputs, strict=True
            ):
                size = image_input["height"], image_input["width"]
                people.append(self._to_image(output["instances"], view["transforms"], size))
        sigmas = torch.tensor(self.skeleton.sigmas)
        merged = [merge_views(people, sigmas.to(people[0].scores)) for people in people_by_view]
        return [
            {"instances": people[people.scores >= image_input.get("score_threshold", 0.0)]}
            for people, image_input in zip(merged, inputs, strict=True)
        ]

    def _to_image(
        self, people: Instances, transforms: TransformList, size: tuple[int, int]
    ) -> Instances:
        """Transforms the people of a view back to the image of this size, (height, width)."""
        inverse = transforms.inverse()
        device = people.scores.device
        boxes = inverse.apply_box(people.pred_boxes.tensor.cpu().numpy())
        keypoints = people.pred_keypoints.clone()
        positions = inverse.apply_coords(keypoints[..., :2].flatten(0, 1).cpu().numpy())
        keypoints[..., :2] = torch.as_tensor(positions).to(keypoints).view_as(keypoints[..., :2])
        if is_mirrored(transforms):
            keypoints = keypoints[:, list(self.skeleton.flip_indices)]
        moved = Instances(size, **people.get_fields())
        moved.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32, device=device))
        moved.pred_keypoints = keypoints
        return moved


def build_tta_mapper(cfg: CfgNode) -> DatasetMapperTTA:
    """Detectron2's mapper for the views of ``TEST.AUG``.

    Raises:
        ValueError: ``TEST.AUG.MIN_SIZES`` is empty.
    """
    if not cfg.TEST.AUG.MIN_SIZES:
        raise ValueError("TEST.AUG.MIN_SIZES is empty: name at least one shortest edge.")
    return DatasetMapperTTA(cfg)


def _with_size(image_input: dict[str, Any]) -> dict[str, Any]:
    """Adds the height and width of the image if the input has none."""
    height, width = image_input["image"].shape[-2:]
    return {"height": height, "width": width} | image_input
