from __future__ import annotations

import pytest
import torch
from detectron2.layers import ROIAlign

from querypose.modeling.sparse.roi_align import RowROIAlign

HEIGHT, WIDTH, SCALE = 12, 20, 0.25


def _features(memory_format: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    features = torch.randn(2, 8, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    return features.contiguous(memory_format=memory_format).requires_grad_()


def _boxes(count: int) -> torch.Tensor:
    """Of all sizes, partly and wholly outside, some turned inside out."""
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([WIDTH, HEIGHT]) / SCALE
    corner = (2 * torch.rand(count, 2, generator=generator) - 0.5) * size
    extent = (1.5 * torch.rand(count, 2, generator=generator) - 0.2) * size
    image = torch.randint(2, (count, 1), generator=generator)
    return torch.cat([image, corner, corner + extent], dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
@pytest.mark.parametrize("output_size", [1, 7, (3, 5)])
def test_it_is_torchvisions_operator(output_size, sampling_ratio, layout):
    theirs = ROIAlign(output_size, SCALE, sampling_ratio, aligned=True)
    ours, boxes = RowROIAlign.like(theirs), _boxes(300)
    features, expected_features = _features(layout), _features()
    expected, actual = theirs(expected_features, boxes), ours(features, boxes)
    assert actual.is_contiguous()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (actual * weight).sum().backward()
    torch.testing.assert_close(features.grad, expected_features.grad, rtol=1e-4, atol=1e-3)


def test_the_exact_whole_map_and_its_edges():
    width, height = WIDTH / SCALE, HEIGHT / SCALE
    boxes = torch.tensor(
        [
            [0, 0, 0, width, height],
            [1, -2, -2, width + 2, height + 2],
            [0, width, height, width, height],
            [1, 0, 0, 0, 0],
            [0, width - 1, 0, width, 1],
        ]
    )
    theirs = ROIAlign(7, SCALE, 2, aligned=True)
    features = _features()
    torch.testing.assert_close(
        RowROIAlign.like(theirs)(features, boxes), theirs(features, boxes), rtol=1e-4, atol=1e-5
    )


def test_no_boxes_give_nothing():
    features = _features()
    pooled = RowROIAlign(7, SCALE, 2)(features, torch.zeros(0, 5))
    assert pooled.shape == (0, 8, 7, 7)
    pooled.sum().backward()
    assert (features.grad == 0).all()


def test_boxes_get_no_gradient():
    boxes = _boxes(3).requires_grad_()
    RowROIAlign(7, SCALE, 2)(_features(), boxes).sum().backward()
    assert boxes.grad is None


@pytest.mark.parametrize("other", [ROIAlign(7, SCALE, 0), ROIAlign(7, SCALE, 2, aligned=False)])
def test_what_it_does_not_know_is_torchvisions(other):
    boxes = _boxes(20)
    boxes[:, 3:] = boxes[:, 1:3] + 30
    assert torch.equal(RowROIAlign.like(other)(_features(), boxes), other(_features(), boxes))


def test_models_use_it(small_model):
    decoder = small_model().decoder
    for pooler in (decoder.box_pooler, decoder.keypoint_pooler):
        assert all(type(level) is RowROIAlign for level in pooler.level_poolers)
