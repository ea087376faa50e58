from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from querypose.inference.tracking import PoseTracker
from querypose.skeleton import COCO_SKELETON


def person(x, y, size=100.0, seed=0):
    """(17, 3) keypoints of a fixed random pose in a box of ``size`` around (x, y)."""
    pose = np.random.default_rng(seed).uniform(-0.5, 0.5, (17, 2)) * size + (x, y)
    return np.concatenate([pose, np.full((17, 1), 0.9)], axis=1)


def frame(*people, size=100.0):
    keypoints = torch.tensor(np.array(people).reshape(-1, 17, 3), dtype=torch.float32)
    centers = (keypoints.amin(1) + keypoints.amax(1))[:, :2] / 2 if people else torch.zeros(0, 2)
    boxes = torch.cat([centers - size / 2, centers + size / 2], dim=1).float()
    return Instances((480, 640), pred_boxes=Boxes(boxes), pred_keypoints=keypoints)


@pytest.fixture
def tracker():
    return PoseTracker(COCO_SKELETON.sigmas)


def test_ids_start_at_one_and_follow_people_in_any_order(tracker):
    assert tracker.update(frame(person(100, 200), person(300, 200))).tolist() == [1, 2]
    assert tracker.update(frame(person(305, 200), person(103, 202))).tolist() == [2, 1]
    assert tracker.update(frame(person(500, 200), person(106, 204))).tolist() == [3, 1]


def test_ids_are_int64_and_none_for_nobody(tracker):
    assert tracker.update(frame()).shape == (0,)
    assert tracker.update(frame(person(1, 1))).dtype == torch.int64
    assert tracker.update(frame()).tolist() == []


def test_a_moving_person_is_found_again_after_a_short_gap(tracker):
    for step in range(6):
        assert tracker.update(frame(person(100 + 15 * step, 200))).tolist() == [1]
    for _ in range(5):
        tracker.update(frame())
    # 90 pixels from where it was last seen: only its motion identifies it.
    assert tracker.update(frame(person(100 + 15 * 11, 200))).tolist() == [1]


def test_a_person_is_forgotten_after_max_age():
    for gap, expected in ((3, 1), (4, 2)):
        tracker = PoseTracker(COCO_SKELETON.sigmas, max_age=3)
        tracker.update(frame(person(100, 200)))
        for _ in range(gap):
            tracker.update(frame())
        assert tracker.update(frame(person(100, 200))).tolist() == [expected]


def test_people_who_cross_keep_their_ids(tracker):
    """Two poses walk through each other; their boxes coincide in the middle."""
    for step in range(21):
        left_to_right = person(100 + 10 * step, 200, seed=1)
        right_to_left = person(300 - 10 * step, 200, seed=2)
        assert tracker.update(frame(left_to_right, right_to_left)).tolist() == [1, 2]


def test_poses_distinguish_people_in_one_box(tracker):
    sitting, standing = person(200, 200, seed=1), person(200, 200, seed=2)
    box = Boxes(torch.tensor([[150.0, 150, 250, 250]] * 2))
    for people, expected in (((sitting, standing), [1, 2]), ((standing, sitting), [2, 1])):
        instances = frame(*people)
        instances.pred_boxes = box
        assert tracker.update(instances).tolist() == expected


def test_poses_move_with_their_boxes_during_a_gap(tracker):
    """Two people in one box walk on together, unseen for a while."""

    def walkers(step, seeds):
        x = 100.0 + 15 * step
        instances = frame(*(person(x, 200, seed=seed) for seed in seeds))
        instances.pred_boxes = Boxes(torch.tensor([[x - 50, 150, x + 50, 250]] * 2))
        return instances

    for step in range(8):
        assert tracker.update(walkers(step, (1, 2))).tolist() == [1, 2]
    for _ in range(5):
        tracker.update(frame())
    assert tracker.update(walkers(13, (2, 1))).tolist() == [2, 1]


@pytest.mark.parametrize(
    "pose",
    [
        [[0, 0]],
        [[0, 0], [0, 200]],
        [[0, 0], [0, 100], [0, 200]],
        [[0, 0], [0.01, 100], [0, 200]],
        [[0, 0], [200, 0]],
    ],
    ids=["point", "two upright", "line", "almost a line", "two lying"],
)
def test_people_whose_keypoints_span_nothing_keep_their_ids(pose):
    """The box of a dense model encloses the keypoints alone."""
    tracker = PoseTracker([0.067] * len(pose))
    for step in range(6):
        places = torch.tensor([pose, pose]).float()
        places += torch.tensor([[100.0 + 4 * step, 100], [400 - 4 * step, 300]])[:, None]
        boxes = Boxes(torch.cat([places.amin(dim=1), places.amax(dim=1)], dim=1))
        keypoints = torch.cat([places, torch.full_like(places[..., :1], 0.9)], dim=-1)
        people = Instances((480, 640), pred_boxes=boxes, pred_keypoints=keypoints)
        assert tracker.update(people).tolist() == [1, 2]
    moved = keypoints + torch.tensor([300.0, 0, 0])
    far = Instances((480, 640), pred_boxes=Boxes(boxes.tensor + 300), pred_keypoints=moved)
    assert tracker.update(far).tolist() == [3, 4]


def test_a_distant_person_gets_a_new_id(tracker):
    tracker.update(frame(person(100, 200)))
    assert tracker.update(frame(person(260, 200))).tolist() == [2]


def test_a_match_below_the_minimum_does_not_prevent_another():
    """The sum of two low similarities must not beat one clear match."""
    tracker = PoseTracker(COCO_SKELETON.sigmas, min_similarity=0.3)
    tracker.update(frame(person(100, 200), person(190, 200)))
    assert tracker.update(frame(person(190, 200), person(280, 200))).tolist() == [2, 3]
