"""From decoded queries to the people of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from querypose.modeling.keypoint_readout import DecodedPeople

DecodeFunction = Callable[[Sequence[Tensor]], DecodedPeople]


def detect_people(
    logits: Tensor,
    boxes: Tensor,
    decode: DecodeFunction,
    image_sizes: Sequence[tuple[int, int]],
    *,
    num_keypoints: int,
    max_detections: int,
    class_score_thresh: float,
) -> list[Instances]:
    """Finds the people with the highest final scores, decoding keypoints of as few as possible.

    A final score is the class score times the quality of the keypoints, hence never above the class
    score. So queries are decoded by falling class score until none that is left can enter the
    result, which is therefore the one that decoding every query would give.

    Args:
        logits: the last stage's, (B, N, classes).
        boxes: the last stage's, (B, N, 4) xyxy in pixels of the network's input.
        decode: maps query indices per picture to those queries' keypoints.
        image_sizes: (height, width) of each unpadded picture.
        num_keypoints: K.
        max_detections: people a picture returns at most.
        class_score_thresh: queries with a lower class score are left out.

    Returns:
        Per picture ``Instances`` in pixels of the network's input, best first, with ``pred_boxes``
        (unclipped), ``scores``, ``pred_classes``, ``pred_keypoints`` (n, K, 3: x, y, score) and
        ``query_indices``, the instance query that each person came from. Boxes that lie outside the
        picture are left out.

    Raises:
        FloatingPointError: a logit, a box, a keypoint or its deviation is NaN or infinite.
    """
    _refuse_unless(logits.isfinite().all() & boxes.isfinite().all(), "class scores or boxes")
    class_scores, classes = logits.float().sigmoid().max(dim=-1)
    candidates = _inside(boxes, image_sizes) & (class_scores >= class_score_thresh)
    keypoints = class_scores.new_zeros(*class_scores.shape, num_keypoints, 3)
    limit = min(max_detections, class_scores.shape[1])
    scores = _decode_best(class_scores, candidates, decode, limit, keypoints)
    # Scores of -inf are of queries that were not decoded.
    finite = keypoints.isfinite().all() & (scores < torch.inf).all()
    _refuse_unless(finite, "keypoints or their scores")
    return [
        _instances(*picture, max_detections=max_detections)
        for picture in zip(image_sizes, boxes, scores, classes, keypoints, strict=True)
    ]


def _refuse_unless(finite: Tensor, what: str) -> None:
    if not finite:
        raise FloatingPointError(
            f"The model's {what} are NaN or infinite: the weights come from a training that has "
            "diverged, or the image has such pixels, or half precision does not suffice."
        )


def _inside(boxes: Tensor, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(B, N) bool: which boxes have an area left once they are clipped to their picture."""
    inside = []
    for picture, size in zip(boxes, image_sizes, strict=True):
        clipped = Boxes(picture.clone())
        clipped.clip(size)
        inside.append(clipped.nonempty())
    return torch.stack(inside)


def _decode_best(
    class_scores: Tensor,
    candidates: Tensor,
    decode: DecodeFunction,
    limit: int,
    keypoints: Tensor,
) -> Tensor:
    """Fills in the keypoints (B, N, K, 3) of the queries that may be among the ``limit`` best.

    Returns:
        Final scores, (B, N), -inf where a query was not decoded.
    """
    scores = torch.full_like(class_scores, -torch.inf)
    waiting = candidates.clone()
    while True:
        entry = scores.topk(limit, dim=1).values[:, -1:]
        reachable = torch.where(waiting & (class_scores >= entry), class_scores, -torch.inf)
        best, order = reachable.topk(limit, dim=1)
        query_indices = [
            index[score > -torch.inf].sort().values
            for index, score in zip(order, best, strict=True)
        ]
        if not any(len(index) for index in query_indices):
            return scores
        people = decode(query_indices)
        pictures = torch.cat(
            [torch.full_like(index, picture) for picture, index in enumerate(query_indices)]
        )
        decoded = pictures, torch.cat(query_indices)
        keypoints[decoded] = people.keypoints
        scores[decoded] = class_scores[decoded] * people.quality
        waiting[decoded] = False


def _instances(
    image_size: tuple[int, int],
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    keypoints: Tensor,
    *,
    max_detections: int,
) -> Instances:
    scores, order = scores.sort(descending=True, stable=True)
    order = order[scores > -torch.inf][:max_detections]
    return Instances(
        image_size,
        pred_boxes=Boxes(boxes[order]),
        scores=scores[: len(order)],
        pred_classes=classes[order],
        pred_keypoints=keypoints[order],
        query_indices=order,
    )
