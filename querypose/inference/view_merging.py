"""Merging of the people of several views of one image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from querypose.oks import boxes_with_extent, pairwise_pose_oks

# Less similar poses are of different persons.
_MIN_OKS = 0.5
# Of an uncertainty, one minus a keypoint's score: no view outweighs all others.
_MIN_UNCERTAINTY = 1e-3


def merge_views(views: Sequence[Instances], sigmas: Tensor) -> Instances:
    """Merges the people of all views.

    People are taken by falling score. Each forms a group with at most one person of every other
    view, not yet in a group and with a sufficient OKS; of several candidates, since a model may
    find a person twice, the one with the highest product of OKS and square root of score.

    In a group, boxes are averaged, and keypoints are averaged with weights ``1 / (1 - score)^2``.
    Scores are averaged over all views; a view without the person counts as score 0.

    Args:
        views: people in pixels of the image, as returned by a
            :class:`~querypose.modeling.pose_model.PoseModel`.
        sigmas: of the skeleton, (K,).

    Returns:
        One person per group, best first, with the other fields of the highest-scoring member. A
        single view is returned unchanged.
    """
    if len(views) == 1:
        return views[0]
    people = Instances.cat(list(views))
    view_of = torch.cat([torch.full((len(view),), i) for i, view in enumerate(views)])
    groups = _group(people, view_of.tolist(), sigmas)
    if not groups:
        return people
    # (n, views): row of each member; the seed stands in for a view without the person.
    seeds = torch.tensor([group[0] for group in groups])
    members = seeds[:, None].repeat(1, len(views))
    shown = torch.zeros(members.shape)
    for index, group in enumerate(groups):
        columns = view_of[group]
        members[index, columns] = torch.tensor(group)
        shown[index, columns] = 1
    return _averaged(people, seeds, members, shown.to(people.scores))


def _group(people: Instances, view_of: list[int], sigmas: Tensor) -> list[list[int]]:
    """Rows of the same person in different views; the highest score of each group comes first."""
    positions = people.pred_keypoints[..., :2]
    boxes = boxes_with_extent(people.pred_boxes.tensor, people.image_size)
    similarity = pairwise_pose_oks(positions, positions, sigmas, boxes=boxes, other_boxes=boxes)
    same_class = people.pred_classes[:, None] == people.pred_classes
    similarity = torch.where(same_class, similarity, 0).cpu()
    is_free = torch.ones(len(people), dtype=torch.bool)
    views = torch.tensor(view_of)
    weights = people.scores.clamp(min=0).sqrt().cpu()
    groups = []
    for seed in people.scores.argsort(descending=True, stable=True).tolist():
        if not is_free[seed]:
            continue
        group = [seed]
        for view in sorted(set(view_of) - {view_of[seed]}):
            eligible = is_free & (views == view) & (similarity[seed] >= _MIN_OKS)
            if eligible.any():
                group.append(int(torch.where(eligible, similarity[seed] * weights, -1).argmax()))
        is_free[group] = False
        groups.append(group)
    return groups


def _averaged(people: Instances, seeds: Tensor, members: Tensor, shown: Tensor) -> Instances:
    """Averages the people in each row of ``members`` (n, views) where ``shown`` is 1."""
    device = people.scores.device
    seeds, members = seeds.to(device), members.to(device)
    merged = people[seeds]
    boxes, keypoints = people.pred_boxes.tensor, people.pred_keypoints
    merged.pred_boxes = Boxes(_mean_about(boxes[seeds], boxes[members], shown[..., None]))
    merged.scores = (people.scores[members] * shown).sum(dim=1) / shown.shape[1]
    uncertainty = (1 - keypoints[..., 2:]).clamp(min=_MIN_UNCERTAINTY)
    weights = uncertainty[members] ** -2 * shown[..., None, None]
    positions = _mean_about(keypoints[seeds, :, :2], keypoints[members][..., :2], weights)
    scores = keypoints[members][..., 2:]
    scores = _mean_about(keypoints[seeds, :, 2:], scores, shown[..., None, None])
    merged.pred_keypoints = torch.cat([positions, scores], dim=-1)
    return merged[merged.scores.argsort(descending=True, stable=True)]


def _mean_about(origin: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (n, views, ...); exactly ``origin`` (n, ...) if all values equal it."""
    offsets = (values - origin[:, None]) * weights
    return origin + offsets.sum(dim=1) / weights.sum(dim=1)
