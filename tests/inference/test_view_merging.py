from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances

from querypose.inference.view_merging import merge_views

BOXES = [[10, 10, 50, 90], [60, 20, 100, 95], [0, 0, 20, 20]]
SIGMAS = torch.tensor([0.1, 0.1])


def people(boxes, scores, uncertainty=0.2, classes=None):
    """One person per box, with keypoints at two of its corners."""
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    confidence = torch.full((len(boxes), 2, 1), 1 - uncertainty)
    return Instances(
        (100, 120),
        pred_boxes=Boxes(boxes),
        scores=torch.tensor(scores, dtype=torch.float32),
        pred_classes=torch.tensor(classes or [0] * len(boxes), dtype=torch.int64),
        pred_keypoints=torch.cat([boxes.view(-1, 2, 2), confidence], dim=-1),
        query_indices=torch.arange(len(boxes)) + 7,
    )


def test_a_single_view_is_returned_unchanged():
    view = people([*BOXES, BOXES[0]], [0.9, 0.5, 0.3, 0.3])
    assert merge_views([view], SIGMAS) is view


def test_the_same_view_twice_changes_nothing():
    view = people(BOXES, [0.9, 0.5, 0.3], classes=[0, 0, 1])
    merged = merge_views([view, view], SIGMAS)
    for name, value in view.get_fields().items():
        if name != "pred_boxes":
            assert torch.equal(merged.get(name), value), name
    assert torch.equal(merged.pred_boxes.tensor, view.pred_boxes.tensor)


def test_only_keypoints_are_weighted_by_their_certainty():
    first = people(BOXES[:1], [0.8], uncertainty=0.1)
    second = people([[12, 12, 52, 92]], [0.4], uncertainty=0.3)
    merged = merge_views([first, second], SIGMAS)
    torch.testing.assert_close(merged.pred_boxes.tensor, torch.tensor([[11.0, 11, 51, 91]]))
    torch.testing.assert_close(merged.scores, torch.tensor([0.6]))
    # A third of the uncertainty gives nine times the weight.
    place = (torch.tensor([10.0, 10.0]) * 9 + torch.tensor([12.0, 12.0])) / 10
    torch.testing.assert_close(merged.pred_keypoints[0, 0], torch.tensor([*place, 0.8]))


def test_every_person_is_kept_once():
    first = people(BOXES[:2], [0.9, 0.5])
    # The second person again, a new one, and one of another class at the box of the first.
    second = people([BOXES[1], BOXES[2], BOXES[0]], [0.4, 0.3, 0.2], classes=[0, 0, 1])
    merged = merge_views([first, second], SIGMAS)
    torch.testing.assert_close(merged.scores, torch.tensor([0.45, 0.45, 0.15, 0.1]))
    found = {tuple(box) for box in merged.pred_boxes.tensor.tolist()}
    assert found == {tuple(map(float, box)) for box in BOXES}
    assert sorted(merged.pred_classes.tolist()) == [0, 0, 0, 1]


def test_a_view_that_does_not_show_a_person_counts_as_zero():
    """One view at 0.6 gives a lower score than four views at 0.6, 0.5, 0.5 and 0.5."""
    once = [people(BOXES[:1], [0.6]), *[people([], []) for _ in range(3)]]
    often = [people(BOXES[1:2], [score]) for score in (0.6, 0.5, 0.5, 0.5)]
    views = [Instances.cat(list(pair)) for pair in zip(once, often, strict=True)]
    merged = merge_views(views, SIGMAS)
    torch.testing.assert_close(merged.scores, torch.tensor([0.525, 0.15]))
    assert merged.pred_boxes.tensor[0].tolist() == BOXES[1]


def test_two_people_of_one_view_stay_two():
    first = people([BOXES[0], BOXES[0]], [0.9, 0.1])
    second = people([BOXES[0], BOXES[0]], [0.2, 0.8])
    merged = merge_views([first, second], SIGMAS)
    assert len(merged) == 2


def test_if_a_person_is_found_twice_confident_ones_are_merged():
    first = people([BOXES[0], BOXES[0]], [0.9, 0.1])
    # The duplicate with the low score is closer.
    second = people([BOXES[0], [11, 10, 51, 90]], [0.1, 0.9])
    merged = merge_views([first, second], SIGMAS)
    torch.testing.assert_close(merged.scores, torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("keypoints", [[[30.0, 12]], [[30.0, 12], [30, 88]]])
def test_keypoints_that_span_no_area_are_of_one_person(keypoints):
    """One keypoint, or head and feet of somebody upright."""
    views = []
    for shift in (0.0, 0.5):
        view = people(BOXES[:1], [0.8])
        positions = torch.tensor([keypoints]) + shift
        confidence = torch.full((1, len(keypoints), 1), 0.8)
        view.pred_keypoints = torch.cat([positions, confidence], dim=-1)
        views.append(view)
    assert len(merge_views(views, SIGMAS[: len(keypoints)])) == 1


@pytest.mark.parametrize(("shift", "expected"), [(0.5, 1), (30, 2)])
def test_single_keypoints_with_boxes_about_themselves_may_be_of_one_person(shift, expected):
    """A dense model knows no other box; the image, 100 x 120, says what is near."""
    views = []
    for x in (10.0, 10 + shift):
        view = people([[x, 20, x, 20]], [0.8])
        view.pred_keypoints = torch.tensor([[[x, 20, 0.8]]])
        views.append(view)
    merged = merge_views(views, SIGMAS[:1])
    assert len(merged) == expected
    assert (merged.pred_boxes.tensor[:, 2:] == merged.pred_boxes.tensor[:, :2]).all()


def test_the_order_of_views_does_not_matter():
    first, second = people(BOXES, [0.9, 0.5, 0.3]), people(BOXES[:2], [0.85, 0.6])
    one, other = merge_views([first, second], SIGMAS), merge_views([second, first], SIGMAS)
    torch.testing.assert_close(one.scores, other.scores)
    torch.testing.assert_close(one.pred_keypoints, other.pred_keypoints)


@pytest.mark.parametrize("counts", [(0, 2), (2, 0), (0, 0)])
def test_views_without_anybody(counts):
    views = [people(BOXES[:count], [0.9, 0.5][:count]) for count in counts]
    merged = merge_views(views, SIGMAS)
    assert len(merged) == max(counts)
    torch.testing.assert_close(merged.scores, torch.tensor([0.45, 0.25][: max(counts)]))
