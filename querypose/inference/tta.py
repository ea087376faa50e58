"""Test-time augmentation: people merged over several views of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import HFlipTransform, TransformList
from detectron2.modeling import DatasetMapperTTA
from detectron2.structures import Boxes, Instances
from torch import nn

from querypose.inference.view_merging import merge_views
from querypose.modeling.pose_model import skeleton_from_config
from querypose.skeleton import Skeleton


class PoseModelWithTTA(nn.Module):
    """A pose model with test-time augmentation, as Detectron2's ``GeneralizedRCNNWithTTA``.

    The people of all views are merged, see :func:`querypose.inference.view_merging.merge_views`.
    Built from a config, ``PoseModelWithTTA(cfg, model)`` takes the views from ``TEST.AUG``.

    Args:
        model: predicts as :class:`querypose.modeling.pose_model.PoseModel` does.
        tta_mapper: from one input of the model to several, each with its ``transforms``.
        skeleton: whose keypoints a mirrored image exchanges.
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
        """Reads ``TEST.AUG``, see :func:`build_tta_mapper`, and the config's skeleton."""
        return {
            "model": model,
            "tta_mapper": build_tta_mapper(cfg),
            "skeleton": skeleton_from_config(cfg),
        }

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Predicts as :meth:`querypose.modeling.pose_model.PoseModel.forward` does.

        ``score_threshold`` is of the merged score.

        Raises:
            ValueError: attention is asked for, which belongs to one view.
        """
        if any(given.get("return_attention") for given in batched_inputs):
            raise ValueError(
                "Attention belongs to one view of an image: set TEST.AUG.ENABLED False to see it."
            )
        given = [_sized(image) for image in batched_inputs]
        found: list[list[Instances]] = [[] for _ in given]
        # One view of every image at a time: images of one size stay so.
        for views in zip(*map(self.tta_mapper, given), strict=True):
            # The people are wanted in pixels of the view.
            outputs = self.model([_sized({"image": view["image"]}) for view in views])
            for people, output, view, image in zip(found, outputs, views, given, strict=True):
                size = image["height"], image["width"]
                people.append(self._in_image(output["instances"], view["transforms"], size))
        sigmas = torch.tensor(self.skeleton.sigmas)
        merged = [merge_views(people, sigmas.to(people[0].scores)) for people in found]
        return [
            {"instances": people[people.scores >= image.get("score_threshold", 0.0)]}
            for people, image in zip(merged, given, strict=True)
        ]

    def _in_image(
        self, people: Instances, transforms: TransformList, size: tuple[int, int]
    ) -> Instances:
        """Takes a view's people back to the image, (height, width)."""
        inverse = transforms.inverse()
        device = people.scores.device
        boxes = inverse.apply_box(people.pred_boxes.tensor.cpu().numpy())
        keypoints = people.pred_keypoints.clone()
        places = inverse.apply_coords(keypoints[..., :2].flatten(0, 1).cpu().numpy())
        keypoints[..., :2] = torch.as_tensor(places).to(keypoints).view_as(keypoints[..., :2])
        if any(isinstance(transform, HFlipTransform) for transform in transforms.transforms):
            keypoints = keypoints[:, list(self.skeleton.flip_indices)]
        moved = Instances(size, **people.get_fields())
        moved.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32, device=device))
        moved.pred_keypoints = keypoints
        return moved


def build_tta_mapper(cfg: CfgNode) -> DatasetMapperTTA:
    """Detectron2's mapper for the views of ``TEST.AUG``.

    Raises:
        ValueError: there is no size.
    """
    if not cfg.TEST.AUG.MIN_SIZES:
        raise ValueError("TEST.AUG.MIN_SIZES is empty: name at least one shortest edge.")
    return DatasetMapperTTA(cfg)


def _sized(given: dict[str, Any]) -> dict[str, Any]:
    """Adds an input's height and width where they are not given."""
    height, width = given["image"].shape[-2:]
    return {"height": height, "width": width} | given
