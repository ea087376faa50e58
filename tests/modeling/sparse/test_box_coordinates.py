from __future__ import annotations

import torch

from querypose.modeling.sparse.box_coordinates import (
    keypoints_to_box,
    keypoints_to_pixels,
    scale_boxes,
)


def test_box_relative_coordinates_by_hand():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    points = torch.tensor([[[10.0, 20.0], [30.0, 60.0], [20.0, 40.0], [15.0, 70.0]]])
    expected = torch.tensor([[[-0.5, -0.5], [0.5, 0.5], [0.0, 0.0], [-0.25, 0.75]]])
    torch.testing.assert_close(keypoints_to_box(points, boxes), expected)


def test_pixels_and_box_relative_coordinates_are_inverse():
    torch.manual_seed(0)
    corners, points = 50 * torch.rand(5, 2), 100 * torch.rand(5, 3, 2)
    boxes = torch.cat([corners, corners + 5 + 40 * torch.rand(5, 2)], dim=1)
    torch.testing.assert_close(keypoints_to_pixels(keypoints_to_box(points, boxes), boxes), points)


def test_boxes_are_enlarged_about_their_centers():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert scale_boxes(boxes, 1.5).tolist() == [[5.0, 10.0, 35.0, 70.0]]
    assert scale_boxes(boxes, 1.0) is boxes
