from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances, Keypoints

from querypose.modeling.targets import PersonTargets

CPU = torch.device("cpu")


def _instances(count: int = 2, num_keypoints: int | None = 3) -> Instances:
    instances = Instances((40, 60))
    instances.gt_boxes = Boxes(torch.arange(4.0 * count).view(count, 4))
    instances.gt_classes = torch.zeros(count, dtype=torch.int64)
    if num_keypoints is not None:
        instances.gt_keypoints = Keypoints(torch.ones(count, num_keypoints, 3))
    return instances


def _read(instances: Instances, num_classes: int = 1) -> PersonTargets:
    return PersonTargets.from_instances(
        instances, num_keypoints=3, num_classes=num_classes, device=CPU
    )


def test_fields_and_the_order_of_the_size():
    target = _read(_instances())
    assert torch.equal(target.boxes, torch.arange(8.0).view(2, 4))
    assert target.classes.tolist() == [0, 0]
    assert torch.equal(target.keypoints, torch.ones(2, 3, 3))
    assert target.size_xyxy.tolist() == [60, 40, 60, 40]


@pytest.mark.parametrize("count", [0, 2])
def test_people_without_keypoints_count_as_unlabeled(count):
    target = _read(_instances(count, num_keypoints=None))
    assert torch.equal(target.keypoints, torch.zeros(count, 3, 3))
    assert target.boxes.shape == (count, 4)


def test_another_keypoint_count_is_refused():
    with pytest.raises(ValueError, match="has 14 keypoints per person, the model has 3"):
        _read(_instances(num_keypoints=14))


@pytest.mark.parametrize("wrong", [-1, 2])
def test_an_unknown_class_is_refused(wrong):
    instances = _instances()
    instances.gt_classes[1] = wrong
    with pytest.raises(ValueError, match=rf"of the classes \[0, {wrong}\].*NUM_CLASSES"):
        _read(instances, num_classes=2)
