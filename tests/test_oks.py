from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from querypose.oks import (
    boxes_with_extent,
    expected_oks,
    paired_oks,
    pairwise_oks,
    pairwise_pose_oks,
    person_areas,
    pose_areas,
)
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

SIGMAS = torch.tensor(COCO_SKELETON.sigmas)


def _random_poses(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    positions = 200 * torch.rand(count, 17, 2, generator=generator)
    visible = torch.randint(0, 3, (count, 17, 1), generator=generator)
    visible[:, 0] = 2
    return torch.cat([positions, visible], dim=-1)


def _coco_oks(predicted: torch.Tensor, targets: torch.Tensor, areas: torch.Tensor) -> np.ndarray:
    """OKS by pycocotools; predictions are in order of falling score."""
    shared = {"image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 200, 200]}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            shared
            | {
                "id": index + 1,
                "area": float(area),
                "keypoints": pose.flatten().tolist(),
                "num_keypoints": int((pose[:, 2] > 0).sum()),
            }
            for index, (pose, area) in enumerate(zip(targets, areas, strict=True))
        ],
    }
    truth.createIndex()
    results = [
        {"image_id": 1, "category_id": 1, "score": 1 - index / 100, "keypoints": row}
        for index, row in enumerate(predicted.flatten(1).tolist())
    ]
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
    evaluation._prepare()
    return evaluation.computeOks(1, 1)


def test_equals_pycocotools() -> None:
    predicted, targets = _random_poses(5, seed=0), _random_poses(4, seed=1)
    targets[..., :2] = predicted[:4, :, :2] + 10 * torch.randn(
        4, 17, 2, generator=torch.Generator().manual_seed(2)
    )
    areas = torch.tensor([900.0, 5000.0, 12000.0, 30.0])
    ours = pairwise_oks(predicted[..., :2], targets, areas, SIGMAS)
    np.testing.assert_allclose(ours.numpy(), _coco_oks(predicted, targets, areas), atol=1e-5)


def test_an_error_of_one_deviation_of_the_nose() -> None:
    target = torch.zeros(1, 17, 3)
    target[0, 0] = torch.tensor([100.0, 100.0, 2.0])
    predicted = target[..., :2].clone()
    predicted[0, 0, 0] += 5.2
    area = torch.tensor([1e4])
    assert pairwise_oks(predicted, target, area, SIGMAS).item() == pytest.approx(0.606531, abs=1e-6)
    target[0, 11] = torch.tensor([50.0, 50.0, 1.0])
    predicted[0, 11] = 50.0
    assert pairwise_oks(predicted, target, area, SIGMAS).item() == pytest.approx(0.803265, abs=1e-6)


@pytest.mark.parametrize(
    ("skeleton", "expected"), [(COCO_SKELETON, 0.862338), (CROWDPOSE_SKELETON, 0.947533)]
)
def test_every_keypoint_off_by_the_same_distance(skeleton, expected) -> None:
    positions = torch.zeros(1, skeleton.num_keypoints, 2)
    moved = positions + torch.tensor([1.3, 0.0])
    weights = torch.ones(1, skeleton.num_keypoints)
    oks = paired_oks(
        moved, positions, torch.tensor([625.0]), torch.tensor(skeleton.sigmas), weights
    )
    assert oks.item() == pytest.approx(expected, abs=1e-6)


def test_oks_is_zero_without_labels() -> None:
    target = torch.zeros(1, 17, 3)
    oks = pairwise_oks(target[..., :2], target, torch.tensor([100.0]), SIGMAS)
    assert oks.item() == 0


def test_pairwise_pose_oks_uses_the_areas_of_the_poses() -> None:
    sigmas = torch.tensor([0.1, 0.1])
    first = torch.tensor([[[0.0, 0.0], [10.0, 10.0]]])
    second = torch.tensor([[[1.0, 0.0], [10.0, 10.0]]])
    assert pairwise_pose_oks(first, second, sigmas).item() == pytest.approx(0.938355, abs=1e-6)
    assert pairwise_pose_oks(7 * first, 7 * second, sigmas).item() == pytest.approx(
        0.938355, abs=1e-6
    )


def test_single_points_without_boxes_match_only_themselves() -> None:
    point, other = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    sigmas = torch.tensor([0.1])
    assert pairwise_pose_oks(point, point, sigmas).item() == 1
    assert pairwise_pose_oks(point, other, sigmas).item() == 0


def test_the_size_of_single_points_is_that_of_their_boxes() -> None:
    point, other = torch.zeros(1, 1, 2), torch.tensor([[[4.0, 0.0]]])
    boxes = torch.tensor([[-20.0, -10.0, 20.0, 70.0]])
    similarity = pairwise_pose_oks(
        point, other, torch.tensor([0.1]), boxes=boxes, other_boxes=boxes
    )
    expected = math.exp(-16 / (2 * 0.53 * 40 * 80 * 0.2**2))
    assert similarity.item() == pytest.approx(expected, abs=1e-6)


IN_LINE = torch.tensor([[50.0, 10.0], [50.0, 60.0], [50.0, 110.0]])


@pytest.mark.parametrize("num_keypoints", [2, 3])
def test_keypoints_in_a_line_have_an_area(num_keypoints) -> None:
    pose, box = IN_LINE[:num_keypoints], torch.tensor([30.0, 0.0, 70.0, 120.0])
    length = 50.0 * (num_keypoints - 1)
    assert pose_areas(pose).item() == pytest.approx(0.1 * length**2)
    assert pose_areas(pose, box).item() == pytest.approx(0.53 * 40 * 120)
    # A dense model's box is that of the keypoints.
    no_box = torch.cat([pose.amin(dim=0), pose.amax(dim=0)])
    assert pose_areas(pose, no_box).item() == pytest.approx(0.1 * length**2)
    sigmas = torch.full((num_keypoints,), 0.062)
    assert pairwise_pose_oks(pose[None], pose[None] + 0.5, sigmas).item() > 0.9
    assert pairwise_pose_oks(pose[None], pose[None] + 50, sigmas).item() < 0.01


def test_keypoints_that_span_an_area_have_it_whatever_the_box() -> None:
    pose = IN_LINE + torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 0.0]])
    for boxes in (None, torch.tensor([0.0, 0.0, 200.0, 200.0])):
        assert pose_areas(pose, boxes).item() == 20 * 100


def test_boxes_that_are_lines_or_points_are_widened() -> None:
    boxes = torch.tensor([[0.1, 0.2, 30.3, 90.7], [50, 10, 50, 110], [0, 7, 40, 7], [5, 5, 5, 5]])
    widened = boxes_with_extent(boxes, (480, 640))
    assert torch.equal(widened[0], boxes[0])
    expected = torch.tensor([[45.0, 10, 55, 110], [0, 5, 40, 9], [-19, -19, 29, 29]])
    torch.testing.assert_close(widened[1:], expected)


def test_expected_oks_is_the_mean_over_normal_errors() -> None:
    sigmas, area = torch.tensor([0.05]), torch.tensor([2500.0])
    deviations = torch.tensor([[[6.0, 3.0]]])
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(200_000, 1, 2, generator=generator) * deviations[0]
    sampled = paired_oks(
        errors, torch.zeros_like(errors), area.expand(len(errors)), sigmas, torch.ones(1)
    )
    assert expected_oks(deviations, area, sigmas).item() == pytest.approx(
        sampled.mean().item(), abs=2e-3
    )


def test_areas_follow_from_boxes() -> None:
    assert person_areas(torch.tensor([[1.0, 2.0, 11.0, 22.0]])).item() == pytest.approx(106.0)


def test_every_function_accepts_no_persons() -> None:
    nobody = torch.zeros(0, 17, 2)
    assert pairwise_pose_oks(nobody, nobody, SIGMAS).shape == (0, 0)
    assert pairwise_oks(nobody, torch.zeros(0, 17, 3), torch.zeros(0), SIGMAS).shape == (0, 0)
    assert expected_oks(nobody, torch.zeros(0), SIGMAS).shape == (0,)
