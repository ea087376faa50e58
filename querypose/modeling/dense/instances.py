"""Poses in cells as Detectron2's ``Instances``."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from querypose.modeling.dense.cells import cells_to_pixels
from querypose.modeling.finite import refuse_infinite
from querypose.modeling.pose_model import PeopleBatch, rescale_instances, wanted_size


def poses_to_batch(keypoints: Tensor, scores: Tensor, max_people: int) -> PeopleBatch:
    """Does what :func:`poses_to_instances` does, with the best people of several images.

    Args:
        keypoints: (B, n, K, 3): x and y in cells, and a score.
        scores: (B, n), -inf for nobody.
        max_people: of every image; at most n of them.
    """
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    order = order[:, :max_people]
    scores = scores[:, :max_people]
    keypoints = keypoints.gather(1, order[..., None, None].expand(-1, -1, *keypoints.shape[2:]))
    places = cells_to_pixels(keypoints[..., :2])
    valid = scores > -torch.inf
    return PeopleBatch(
        torch.cat([places.amin(dim=2), places.amax(dim=2)], dim=2),
        torch.where(valid, scores, 0),
        torch.cat([places, torch.where(valid[..., None, None], keypoints[..., 2:], 0)], dim=-1),
        valid,
        torch.zeros_like(scores, dtype=torch.int64),
    )


def poses_to_instances(keypoints: Tensor, scores: Tensor, given: dict[str, Any]) -> Instances:
    """Makes persons of poses, best first, in the size that is wanted.

    Nobody is left out for being beyond the image's edge. A person's box encloses the keypoints.

    Args:
        keypoints: (n, K, 3): x and y in cells, and a score.
        scores: (n,).
        given: the image's dictionary, see :meth:`querypose.modeling.pose_model.PoseModel.forward`:
            of ``score_threshold``, ``height`` and ``width`` what is there counts.

    Raises:
        FloatingPointError: a keypoint or a score is NaN or infinite.
    """
    refuse_infinite("keypoints or their scores", keypoints, scores)
    order = scores.argsort(descending=True, stable=True)
    if "score_threshold" in given:
        order = order[scores[order] >= given["score_threshold"]]
    keypoints, scores = keypoints[order], scores[order]
    places = cells_to_pixels(keypoints[..., :2])
    image_size = tuple(given["image"].shape[-2:])
    persons = Instances(
        image_size,
        pred_boxes=Boxes(torch.cat([places.amin(dim=1), places.amax(dim=1)], dim=1)),
        scores=scores,
        pred_classes=torch.zeros_like(scores, dtype=torch.int64),
        pred_keypoints=torch.cat([places, keypoints[..., 2:]], dim=-1),
    )
    return rescale_instances(persons, wanted_size(given, image_size))
