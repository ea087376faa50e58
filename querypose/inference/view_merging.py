"""The people of several views of one image, merged into one set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from querypose.oks import pairwise_pose_oks

# Two poses of less similarity are not the same person.
_MIN_OKS = 0.5
# Of one minus a keypoint's score: no view outvotes all others.
_SMALLEST_DOUBT = 1e-3


def merge_views(views: Sequence[Instances], sigmas: Tensor) -> Instances:
    """Merges the people of all views.

    The best person that is left takes from every other view one whose OKS with it is high enough.
    Where a view has several such, since a model finds a person twice at times, it is the one of the
    highest product of OKS and the root of its score. Boxes are means over the views that show the
    person, keypoints means weighted by certainty, one over the square of one minus the keypoint's
    score. Scores are means over all views: one that does not show the person counts as zero.

    Args:
        views: people in pixels of the image, as a
            :class:`~querypose.modeling.pose_model.PoseModel` returns them.
        sigmas: of the skeleton, (K,).

    Returns:
        Every person of every view once, best first, with the other fields of the view that was
        surest of the person. One view alone comes back as it is.
    """
    if len(views) == 1:
        return views[0]
    people = Instances.cat(list(views))
    view_of = torch.cat([torch.full((len(view),), i) for i, view in enumerate(views)])
    groups = _group(people, view_of.tolist(), sigmas)
    if not groups:
        return people
    # (n, views): the members' rows; where a view does not show a person, the best one's stands in.
    seeds = torch.tensor([group[0] for group in groups])
    members = seeds[:, None].repeat(1, len(views))
    shown = torch.zeros(members.shape)
    for index, group in enumerate(groups):
        columns = view_of[group]
        members[index, columns] = torch.tensor(group)
        shown[index, columns] = 1
    return _averaged(people, seeds, members, shown.to(people.scores))


def _group(people: Instances, view_of: list[int], sigmas: Tensor) -> list[list[int]]:
    """Rows of the same person in different views, the surest of each group first."""
    places = people.pred_keypoints[..., :2]
    similarity = pairwise_pose_oks(places, places, sigmas)
    same_class = people.pred_classes[:, None] == people.pred_classes
    similarity = torch.where(same_class, similarity, 0).cpu()
    waiting = torch.ones(len(people), dtype=torch.bool)
    views = torch.tensor(view_of)
    weights = people.scores.clamp(min=0).sqrt().cpu()
    groups = []
    for seed in people.scores.argsort(descending=True, stable=True).tolist():
        if not waiting[seed]:
            continue
        group = [seed]
        for view in sorted(set(view_of) - {view_of[seed]}):
            eligible = waiting & (views == view) & (similarity[seed] >= _MIN_OKS)
            if eligible.any():
                group.append(int(torch.where(eligible, similarity[seed] * weights, -1).argmax()))
        waiting[group] = False
        groups.append(group)
    return groups


def _averaged(people: Instances, seeds: Tensor, members: Tensor, shown: Tensor) -> Instances:
    """Averages each row of ``members`` (n, views), where ``shown``, about its seed (n,)."""
    device = people.scores.device
    seeds, members = seeds.to(device), members.to(device)
    merged = people[seeds]
    boxes, keypoints = people.pred_boxes.tensor, people.pred_keypoints
    merged.pred_boxes = Boxes(_mean_about(boxes[seeds], boxes[members], shown[..., None]))
    merged.scores = (people.scores[members] * shown).sum(dim=1) / shown.shape[1]
    doubt = (1 - keypoints[..., 2:]).clamp(min=_SMALLEST_DOUBT)
    weights = doubt[members] ** -2 * shown[..., None, None]
    places = _mean_about(keypoints[seeds, :, :2], keypoints[members][..., :2], weights)
    scores = keypoints[members][..., 2:]
    scores = _mean_about(keypoints[seeds, :, 2:], scores, shown[..., None, None])
    merged.pred_keypoints = torch.cat([places, scores], dim=-1)
    return merged[merged.scores.argsort(descending=True, stable=True)]


def _mean_about(origin: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (n, views, ...) values; exactly ``origin`` (n, ...) where all equal it."""
    offsets = (values - origin[:, None]) * weights
    return origin + offsets.sum(dim=1) / weights.sum(dim=1)
