from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.targets import PersonTargets


def _matcher(**changes) -> HungarianMatcher:
    weights = {
        "class_cost": 2.0,
        "l1_cost": 5.0,
        "giou_cost": 2.0,
        "focal_alpha": 0.25,
        "focal_gamma": 2.0,
    }
    return HungarianMatcher(**(weights | changes))


def _boxes(count: int) -> torch.Tensor:
    top_left = 60 * torch.rand(count, 2)
    return torch.cat([top_left, top_left + 5 + 40 * torch.rand(count, 2)], dim=1)


def _target(count: int, num_classes: int = 1) -> PersonTargets:
    return PersonTargets(
        boxes=_boxes(count),
        classes=torch.randint(num_classes, (count,)),
        keypoints=torch.zeros(count, 3, 3),
        size_xyxy=torch.tensor([120.0, 100.0, 120.0, 100.0]),
    )


def _giou(first: list[float], second: list[float]) -> float:
    def area(box):
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    corners = list(zip(first, second, strict=True))
    shared = [max(c) for c in corners[:2]] + [min(c) for c in corners[2:]]
    overlap = area(shared) if shared[2] > shared[0] and shared[3] > shared[1] else 0
    hull = area([min(c) for c in corners[:2]] + [max(c) for c in corners[2:]])
    union = area(first) + area(second) - overlap
    return overlap / union - (hull - union) / hull


def test_cost_by_hand():
    torch.manual_seed(0)
    logits, boxes, target = torch.randn(4, 2), _boxes(4), _target(3, num_classes=2)
    target = target._replace(classes=torch.tensor([1, 0, 1]))
    actual = _matcher(focal_alpha=0.3, focal_gamma=1.5).cost(logits, boxes, target)
    assert actual.shape == (4, 3)
    for query, person in itertools.product(range(4), range(3)):
        logit = logits[query, target.classes[person]].item()
        probability = 1 / (1 + math.exp(-logit))
        positive = -0.3 * (1 - probability) ** 1.5 * math.log(probability + 1e-8)
        negative = -0.7 * probability**1.5 * math.log(1 - probability + 1e-8)
        box, other = boxes[query].tolist(), target.boxes[person].tolist()
        sizes = (120, 100, 120, 100)
        l1 = sum(abs(a - b) / size for a, b, size in zip(box, other, sizes, strict=True))
        expected = 2 * (positive - negative) + 5 * l1 - 2 * _giou(box, other)
        assert actual[query, person].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("logit", "sign"), [(100.0, -1), (-100.0, 1)])
def test_class_cost_of_a_certain_query_is_bounded_by_the_logarithms_epsilon(logit, sign):
    matcher = _matcher(class_cost=1.0, l1_cost=0.0, giou_cost=0.0, focal_alpha=0.5)
    cost = matcher.cost(torch.tensor([[logit]]), _boxes(1), _target(1)).item()
    assert cost == pytest.approx(-sign * 0.5 * math.log(1e-8), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_assignment_is_the_cheapest_of_all(num_queries, num_people, seed):
    torch.manual_seed(seed)
    logits, boxes = torch.randn(1, num_queries, 1), _boxes(num_queries)[None]
    target = _target(num_people)
    matcher = _matcher()
    cost = matcher.cost(logits[0], boxes[0], target).double()
    smaller, larger = sorted((num_queries, num_people))
    by_smaller_side = cost if num_queries <= num_people else cost.T
    cheapest = min(
        sum(by_smaller_side[index, other].item() for index, other in enumerate(chosen))
        for chosen in itertools.permutations(range(larger), smaller)
    )
    queries, people = matcher([logits], [boxes], [target])[0][0]
    assert len(queries) == len(people) == smaller
    assert len(set(queries.tolist())) == len(set(people.tolist())) == smaller
    assert queries.tolist() == sorted(queries.tolist())
    assert queries.dtype == people.dtype == torch.int64
    assert cost[queries, people].sum().item() == pytest.approx(cheapest, abs=1e-5)


def test_stages_and_images_are_matched_one_by_one():
    torch.manual_seed(0)
    targets = [_target(2), _target(0), _target(3)]
    logits = [torch.randn(3, 4, 1) for _ in range(2)]
    boxes = [torch.stack([_boxes(4) for _ in range(3)]) for _ in range(2)]
    matcher = _matcher()
    together = matcher(logits, boxes, targets)
    assert [[len(queries) for queries, _ in stage] for stage in together] == [[2, 0, 3]] * 2
    for stage, image in itertools.product(range(2), range(3)):
        alone = matcher([logits[stage][image, None]], [boxes[stage][image, None]], [targets[image]])
        for one, other in zip(alone[0][0], together[stage][image], strict=True):
            assert torch.equal(one, other)


def test_a_query_on_a_person_takes_that_person():
    target = _target(3)
    order = [2, 0, 1]
    boxes = torch.cat([_boxes(2), target.boxes[order]])[None]
    queries, people = _matcher()([torch.zeros(1, 5, 1)], [boxes], [target])[0][0]
    assert queries.tolist() == [2, 3, 4]
    assert people.tolist() == order


def test_nobody_in_any_image():
    matches = _matcher()([torch.zeros(2, 4, 1)], [_boxes(8).view(2, 4, 4)], [_target(0)] * 2)
    assert [[len(index) for index in pair] for pair in matches[0]] == [[0, 0]] * 2


@pytest.mark.parametrize(
    ("where", "value"),
    [("logits", math.nan), ("boxes", math.nan), ("boxes", math.inf), ("boxes", -math.inf)],
)
def test_diverged_predictions_are_reported(where, value):
    inputs = {"logits": torch.zeros(1, 4, 1), "boxes": _boxes(4)[None]}
    inputs[where][0, 1, 0] = value
    with pytest.raises(FloatingPointError, match=r"cost is NaN or infinite.*BASE_LR"):
        _matcher()([inputs["logits"]], [inputs["boxes"]], [_target(2)])


def test_matching_has_no_gradient():
    logits = torch.zeros(1, 4, 1, requires_grad=True)
    boxes = _boxes(4)[None].requires_grad_()
    assert torch.is_grad_enabled()
    queries, people = _matcher()([logits], [boxes], [_target(2)])[0][0]
    assert not queries.requires_grad
    assert not people.requires_grad
