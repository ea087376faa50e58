from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from querypose.modeling.heatmap import HeatmapHead, draw_heatmaps, heatmap_focal_loss
from querypose.modeling.targets import PersonTargets

STRIDE = 4


def _target(boxes: list[list[float]], keypoints: list[list[list[float]]]) -> PersonTargets:
    points = torch.tensor(keypoints, dtype=torch.float32)
    return PersonTargets(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.zeros(len(boxes), dtype=torch.int64),
        points,
        torch.tensor([256.0, 256.0, 256.0, 256.0]),
    )


def test_a_gaussian_is_exactly_one_in_the_cell_of_its_keypoint_and_nowhere_else():
    target = _target([[0, 0, 120, 160]], [[[41.9, 83.0, 2], [40.0, 84.0, 1]]])
    heatmaps = draw_heatmaps(target, (64, 64), STRIDE)
    assert heatmaps.shape == (2, 64, 64)
    assert heatmaps.eq(1).nonzero().tolist() == [[0, 20, 10], [1, 21, 10]]
    assert ((heatmaps >= 0) & (heatmaps <= 1)).all()
    assert 0 < heatmaps[0, 20, 11] == heatmaps[0, 20, 9] == heatmaps[0, 21, 10] < 1


@pytest.mark.parametrize("point", [[40, 80, 0], [-1, 80, 2], [300, 80, 2], [40, 300, 2]])
def test_unlabeled_keypoints_and_those_off_the_map_leave_no_peak(point):
    target = _target([[0, 0, 120, 160]], [[point, [100, 100, 2]]])
    heatmaps = draw_heatmaps(target, (64, 64), STRIDE)
    assert heatmaps[0].max() < 1
    if point[2] == 0:
        assert (heatmaps[0] == 0).all()
    assert heatmaps[1, 25, 25] == 1


def test_where_people_overlap_the_larger_value_stands():
    people = [[[40, 40, 2]], [[48, 40, 2]]]
    boxes = [[0, 0, 120, 160], [10, 0, 90, 140]]
    alone = [
        draw_heatmaps(_target([box], [person]), (64, 64), STRIDE)
        for box, person in zip(boxes, people, strict=True)
    ]
    assert ((alone[0] > 0) & (alone[1] > 0)).any()
    together = draw_heatmaps(_target(boxes, people), (64, 64), STRIDE)
    assert torch.equal(together, torch.maximum(*alone))


def test_nobody_gives_empty_maps():
    nobody = PersonTargets(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5, 3), torch.ones(4)
    )
    assert torch.equal(draw_heatmaps(nobody, (8, 6), STRIDE), torch.zeros(5, 8, 6))


def _iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    sides = [max(min(first[i + 2], second[i + 2]) - max(first[i], second[i]), 0) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


@settings(max_examples=60, deadline=None)
@given(st.floats(2, 60), st.floats(2, 60))
def test_radius_is_the_largest_that_keeps_the_overlap(width, height):
    """Whichever way both corners move by the radius, the IoU stays above 0.7."""
    target = _target([[0, 0, width * STRIDE, height * STRIDE]], [[[130, 130, 2]]])
    radius = int((draw_heatmaps(target, (64, 64), STRIDE)[0, 32] > 0).sum() - 1) // 2

    def worst(r: int) -> float:
        box = (0, 0, width, height)
        moved = (r, r, width + r, height + r)
        smaller = (r, r, width - r, height - r)
        larger = (-r, -r, width + r, height + r)
        fits = 2 * r < min(width, height)
        return min(_iou(box, moved), _iou(box, larger), _iou(box, smaller) if fits else 0)

    assert worst(radius) >= 0.7 - 1e-3
    assert worst(radius + 1) < 0.7 + 1e-3


def test_focal_loss_by_hand():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 2, 3)
    heatmaps = torch.tensor([0.0, 0.3, 1.0, 0.9, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.99, 1.0])
    expected = 0.0
    for logit, value in zip(logits.flatten().tolist(), heatmaps.tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        if value == 1:
            expected -= (1 - probability) ** 2 * math.log(probability)
        else:
            expected -= (1 - value) ** 4 * probability**2 * math.log(1 - probability)
    actual = heatmap_focal_loss(logits, heatmaps.view(1, 2, 2, 3))
    assert actual.item() == pytest.approx(expected / 3, rel=1e-4)


def test_focal_loss_of_extreme_logits_is_finite():
    logits = torch.tensor([-200.0, 200.0]).view(1, 1, 1, 2).requires_grad_()
    loss = heatmap_focal_loss(logits, torch.tensor([1.0, 0.0]).view(1, 1, 1, 2))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("people", [0, 2])
def test_head_weighs_the_loss_and_reaches_all_its_parameters(people, random_people):
    torch.manual_seed(0)
    head = HeatmapHead(in_channels=8, num_keypoints=17, stride=4, weight=0.5, prior_prob=0.01)
    features = torch.randn(2, 8, 16, 24)
    targets = [random_people(people, (64, 96)), random_people(0, (64, 96))]
    losses = head(features, targets)
    heatmaps = torch.stack([draw_heatmaps(target, (16, 24), 4) for target in targets])
    expected = 0.5 * heatmap_focal_loss(head.layers(features), heatmaps)
    assert list(losses) == ["loss_heatmap"]
    torch.testing.assert_close(losses["loss_heatmap"], expected)
    losses["loss_heatmap"].backward()
    assert all((parameter.grad != 0).any() for parameter in head.parameters())


def test_an_untrained_map_predicts_the_prior():
    head = HeatmapHead(in_channels=8, num_keypoints=3, stride=4, weight=0.5, prior_prob=0.1)
    maps = head.layers(torch.zeros(1, 8, 4, 4))
    torch.testing.assert_close(head.layers[-1].bias.sigmoid(), torch.full((3,), 0.1))
    assert maps.shape == (1, 3, 4, 4)
