"""From queries to the people of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from querypose.modeling.finite import refuse_infinite
from querypose.modeling.pose_model import PeopleBatch
from querypose.modeling.sparse.readout import DecodedPeople

DecodeFunction = Callable[[Tensor | Sequence[Tensor]], DecodedPeople]
SuppressFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def detect_people(
    logits: Tensor,
    boxes: Tensor,
    decode: DecodeFunction,
    image_sizes: Sequence[tuple[int, int]],
    *,
    max_detections: int,
    score_thresholds: Sequence[float],
    suppress: SuppressFunction,
) -> list[Instances]:
    """Finds the people with the highest final scores and decodes as few queries as possible.

    The final score is the class score times the quality of the keypoints, hence never above the
    class score. Queries are decoded by falling class score until no other one can enter the result.
    A person can only be dropped for a better one, so the result is the same as if every query were
    decoded.

    Args:
        logits: of the last stage, (B, N, classes).
        boxes: of the last stage, (B, N, 4) xyxy in pixels of the network's input.
        decode: maps query indices per image to the keypoints of these queries.
        image_sizes: (height, width) of each unpadded image.
        max_detections: maximum number of people per image.
        score_thresholds: per image, the lowest final score of a person.
        suppress: drops people who resemble a better one, see
            :meth:`querypose.modeling.sparse.readout.KeypointReadout.suppress`.

    Returns:
        Per image ``Instances`` in pixels of the network's input, best first, with ``pred_boxes``
        (unclipped), ``scores``, ``pred_classes``, the fields of :class:`DecodedPeople` and
        ``query_indices``, the query of each person. Nobody's box lies outside the image.

    Raises:
        FloatingPointError: a logit, a box, a keypoint or a quality is NaN or infinite.
    """
    refuse_infinite("class scores or boxes", logits, boxes)
    class_scores, classes = logits.float().sigmoid().max(dim=-1)
    thresholds = class_scores.new_tensor(score_thresholds)[:, None]
    clipped = _clip(boxes, torch.as_tensor(image_sizes))
    candidates = _has_area(clipped) & (class_scores >= thresholds)
    limit = min(max_detections, class_scores.shape[1])

    def stand(scores: Tensor, keypoints: Tensor) -> Tensor:
        return suppress(scores, keypoints, classes, clipped)

    # A score of -inf means that the query was not decoded, or was dropped.
    scores, decoded = _decode_best(class_scores, candidates, decode, stand, limit)
    scores = torch.where(scores >= thresholds, scores, -torch.inf)
    fields = {"scores": scores, "pred_classes": classes, **decoded}
    people = []
    for index, image_size in enumerate(image_sizes):
        image_scores, order = scores[index].sort(descending=True, stable=True)
        order = order[image_scores > -torch.inf][:max_detections]
        found = Instances(image_size, pred_boxes=Boxes(boxes[index, order]), query_indices=order)
        for name, values in fields.items():
            found.set(name, values[index, order])
        people.append(found)
    return people


def detect_at_most(
    logits: Tensor,
    boxes: Tensor,
    decode: DecodeFunction,
    image_sizes: Tensor,
    *,
    max_people: int,
    suppress: SuppressFunction,
) -> PeopleBatch:
    """Finds people as :func:`detect_people` does, but decodes a fixed number of queries.

    They are the ``max_people`` queries with the highest class scores. The result above a score is
    the same as if every query were decoded where no other query has a class score above it.

    Args:
        logits: see :func:`detect_people`; also the next two.
        boxes: those that the result has are clipped to the image.
        decode: called once.
        image_sizes: (B, 2), height and width.
        max_people: n, at most N.
        suppress: see :func:`detect_people`.
    """
    class_scores, classes = logits.float().sigmoid().max(dim=-1)
    boxes = _clip(boxes, image_sizes)
    class_scores = torch.where(_has_area(boxes), class_scores, -torch.inf)
    # As in `detect_people`, of equal scores that of the earlier query counts.
    queries = class_scores.topk(max_people, dim=1).indices.sort(dim=1).values
    class_scores = class_scores.gather(1, queries)
    people = decode(queries)
    keypoints, quality = (
        values.unflatten(0, (-1, max_people)) for values in (people.keypoints, people.quality)
    )
    # `where` again: an infinity times a quality of 0 is not a number.
    scores = torch.where(class_scores > -torch.inf, class_scores * quality, -torch.inf)
    classes = classes.gather(1, queries)
    boxes = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    scores = suppress(scores, keypoints, classes, boxes)
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    valid = scores > -torch.inf
    return PeopleBatch(
        boxes.gather(1, order[..., None].expand_as(boxes)),
        torch.where(valid, scores, 0),
        keypoints.gather(1, order[..., None, None].expand_as(keypoints)),
        valid,
        classes.gather(1, order),
    )


def _clip(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Clips (B, N, 4) boxes to their images, whose heights and widths are (B, 2)."""
    corner = image_sizes.to(boxes).flip(-1).repeat(1, 2)
    return boxes.clamp(min=0).minimum(corner[:, None])


def _has_area(boxes: Tensor) -> Tensor:
    """Which of (..., 4) boxes are not empty, (...) bool."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def _decode_best(
    class_scores: Tensor,
    candidates: Tensor,
    decode: DecodeFunction,
    stand: Callable[[Tensor, Tensor], Tensor],
    limit: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Decodes the queries that may be among the ``limit`` best of their image.

    At most twice as many are decoded as if each turn decoded ``limit`` queries.

    Returns:
        Final scores, (B, N), -inf where a query was not decoded or does not stand, and the decoded
        fields by name, (B, N, ...).
    """
    scores = standing = torch.full_like(class_scores, -torch.inf)
    waiting = candidates.clone()
    decoded: dict[str, Tensor] = {}
    num_decoded = 0
    while True:
        entry = standing.topk(limit, dim=1).values[:, -1:]
        reachable = torch.where(waiting & (class_scores >= entry), class_scores, -torch.inf)
        # As many as all before: a few at a time are slow.
        count = min(max(limit, num_decoded), class_scores.shape[1])
        num_decoded += count
        best, order = reachable.topk(count, dim=1)
        query_indices = [
            index[score > -torch.inf].sort().values
            for index, score in zip(order, best, strict=True)
        ]
        # Without any candidate an empty selection is decoded, which gives the fields their shapes.
        if decoded and not any(len(index) for index in query_indices):
            return standing, decoded
        people = decode(query_indices)
        refuse_infinite("keypoints or their scores", people.keypoints, people.quality)
        images = torch.cat(
            [torch.full_like(index, image) for image, index in enumerate(query_indices)]
        )
        rows = images, torch.cat(query_indices)
        for name, values in people.fields().items():
            if name not in decoded:
                decoded[name] = values.new_zeros(*class_scores.shape, *values.shape[1:])
            decoded[name][rows] = values
        scores[rows] = class_scores[rows] * people.quality
        waiting[rows] = False
        standing = stand(scores, decoded["pred_keypoints"])
