"""People averaged over several views of a picture: mirrored, and in other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.transforms import HFlipTransform, TransformList
from detectron2.modeling import DatasetMapperTTA
from detectron2.structures import Boxes, Instances, pairwise_iou
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from querypose.modeling.querypose import skeleton_from_config
from querypose.skeleton import Skeleton

# People of two views whose boxes overlap less are not the same.
_MIN_OVERLAP = 0.5
# Of predicted deviations, in units of the box: no view outvotes all others.
_SMALLEST_SIGMA = 1e-3


class QueryPoseWithTTA(nn.Module):
    """A QueryPose with test-time augmentation, as Detectron2's ``GeneralizedRCNNWithTTA``.

    The people are those of the first view, the unflipped one of the first size. Other views tell
    more about them: boxes and scores become means over the views that show the person, keypoints
    means weighted by the inverse of their predicted variance.

    Built from a config, ``QueryPoseWithTTA(cfg, model)`` takes the views from ``TEST.AUG``.

    Args:
        model: predicts as :class:`querypose.modeling.QueryPose` does.
        tta_mapper: from one input of the model to several, each with its ``transforms``.
        skeleton: whose keypoints a mirrored picture exchanges.
    """

    @configurable
    def __init__(
        self, *, model: nn.Module, tta_mapper: DatasetMapperTTA, skeleton: Skeleton
    ) -> None:
        super().__init__()
        self.model = model
        self.tta_mapper = tta_mapper
        self.flip_indices = list(skeleton.flip_indices)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Reads ``TEST.AUG``; see :func:`build_tta_mapper`."""
        return {
            "model": model,
            "tta_mapper": build_tta_mapper(cfg),
            "skeleton": skeleton_from_config(cfg),
        }

    def forward(self, batched_inputs: Sequence[dict[str, Any]]) -> list[dict[str, Instances]]:
        """Predicts; see :meth:`querypose.modeling.QueryPose.forward`."""
        given = [_sized(picture) for picture in batched_inputs]
        people: list[list[Instances]] = [[] for _ in given]
        # One view of every picture at a time: pictures of one size stay so.
        for views in zip(*map(self.tta_mapper, given), strict=True):
            # The people are wanted in pixels of the view.
            inputs = [_sized({"image": view["image"]}) for view in views]
            for found, output, view, picture in zip(
                people, self.model(inputs), views, given, strict=True
            ):
                size = picture["height"], picture["width"]
                found.append(self._in_picture(output["instances"], view["transforms"], size))
        return [{"instances": average_people(found)} for found in people]

    def _in_picture(
        self, people: Instances, transforms: TransformList, size: tuple[int, int]
    ) -> Instances:
        """Takes a view's people back to the picture, (height, width)."""
        inverse = transforms.inverse()
        device = people.scores.device
        boxes = inverse.apply_box(people.pred_boxes.tensor.cpu().numpy())
        keypoints = people.pred_keypoints.clone()
        places = inverse.apply_coords(keypoints[..., :2].flatten(0, 1).cpu().numpy())
        keypoints[..., :2] = torch.as_tensor(places).to(keypoints).view_as(keypoints[..., :2])
        if any(isinstance(transform, HFlipTransform) for transform in transforms.transforms):
            keypoints = keypoints[:, self.flip_indices]
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


def average_people(views: Sequence[Instances]) -> Instances:
    """Averages the people of the first view over all views of a picture.

    Args:
        views: people in pixels of the picture, as :meth:`querypose.modeling.QueryPose.forward`
            returns them.

    Returns:
        The first view's people with all their fields, best first.
    """
    first = views[0]
    others = [view for view in views[1:] if len(view)]
    themselves = torch.arange(len(first), device=first.scores.device)
    indices = torch.stack([themselves, *(_counterparts(first, view) for view in others)])
    shown = (indices >= 0).float()
    # Where a view does not show a person, any row stands in, and counts nothing.
    matched = [
        view[index] for view, index in zip([first, *others], indices.clamp(min=0), strict=True)
    ]
    boxes = torch.stack([view.pred_boxes.tensor for view in matched])
    scores = torch.stack([view.scores for view in matched])
    keypoints = torch.stack([view.pred_keypoints for view in matched])

    averaged = Instances(first.image_size, **first.get_fields())
    averaged.pred_boxes = Boxes(_mean(boxes, shown[..., None]))
    averaged.scores = _mean(scores, shown)
    shown = shown[..., None, None]
    certainty = (1 - keypoints[..., 2:]).clamp(min=_SMALLEST_SIGMA) ** -2
    places = _mean(keypoints[..., :2], shown * certainty)
    averaged.pred_keypoints = torch.cat([places, _mean(keypoints[..., 2:], shown)], dim=-1)
    return averaged[averaged.scores.argsort(descending=True, stable=True)]


def _counterparts(people: Instances, others: Instances) -> Tensor:
    """The same persons in another view, (n,) int64, -1 where it shows none.

    Where several queries have found a person, the confident ones meet.
    """
    overlap = pairwise_iou(people.pred_boxes, others.pred_boxes)
    same_class = people.pred_classes[:, None] == others.pred_classes
    eligible = (overlap >= _MIN_OVERLAP) & same_class
    gain = overlap * (people.scores[:, None] * others.scores).sqrt() * eligible
    rows, columns = (
        torch.as_tensor(index, device=overlap.device)
        for index in linear_sum_assignment(gain.cpu().numpy(), maximize=True)
    )
    counterparts = torch.full_like(people.pred_classes, -1)
    counterparts[rows] = torch.where(eligible[rows, columns], columns, -1)
    return counterparts


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum(dim=0) / weights.sum(dim=0)


def _sized(given: dict[str, Any]) -> dict[str, Any]:
    """Adds an input's height and width where they are not given."""
    height, width = given["image"].shape[-2:]
    return {"height": height, "width": width} | given
