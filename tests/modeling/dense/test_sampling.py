import pytest
import torch

from querypose.modeling.dense.sampling import sample_group_points, sample_maps, sample_points


def sample_in_loops(feature, point):
    """One point of one (C, H, W) map, straight from the definition."""
    x, y = point.tolist()
    total = torch.zeros(len(feature), dtype=torch.float64)
    for row in range(feature.shape[1]):
        for column in range(feature.shape[2]):
            weight = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
            total += weight * feature[:, row, column].double()
    return total.float()


@pytest.mark.parametrize("size", [(6, 9), (128, 160), (1, 7), (7, 1)])
def test_a_ramp_returns_the_position_from_border_to_border(size):
    height, width = size
    ramp = torch.arange(width).float().expand(1, 1, height, width)
    x = torch.cat([torch.linspace(0, width - 1, 41), torch.arange(width)])
    points = torch.stack([x, torch.full_like(x, (height - 1) / 2)], dim=-1)
    sampled = sample_maps(ramp, points[None, None])
    torch.testing.assert_close(sampled.flatten(), x, atol=1e-4, rtol=0)


def test_values_fade_to_zero_within_one_cell_outside():
    constant = torch.full((1, 1, 5, 5), 3.0)
    x = torch.tensor([-0.5, -1.0, -7.0, 4.5, 5.0])
    points = torch.stack([x, torch.full_like(x, 2)], dim=-1)
    sampled = sample_maps(constant, points[None, None]).flatten()
    torch.testing.assert_close(sampled, torch.tensor([1.5, 0, 0, 1.5, 0]))


def test_flat_points_read_their_own_image_in_the_loop_too():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 6, generator=generator)
    points = torch.rand(7, 2, 2, generator=generator) * 9 - 1.5
    images = torch.tensor([0, 0, 0, 2, 2, 2, 2])
    sampled = sample_points(features, points, images)
    assert sampled.shape == (7, 2, 4)
    for index, image in enumerate(images.tolist()):
        for point in range(2):
            expected = sample_in_loops(features[image], points[index, point])
            torch.testing.assert_close(sampled[index, point], expected, atol=1e-5, rtol=1e-5)


def test_groups_sample_their_own_channels_at_their_own_points():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 3 * 4, 6, 7, generator=generator)
    points = torch.rand(5, 3, 2, 2, generator=generator) * 6
    images = torch.tensor([0, 1, 1, 1, 1])
    sampled = sample_group_points(features, points, images)
    assert sampled.shape == (5, 3, 2, 4)
    for group in range(3):
        own = sample_points(features[:, 4 * group : 4 * group + 4], points[:, group], images)
        torch.testing.assert_close(sampled[:, group], own)


def test_no_points_give_no_samples_and_a_zero_gradient():
    features = torch.randn(2, 4, 5, 6, requires_grad=True)
    sampled = sample_points(features, torch.zeros(0, 3, 2), torch.zeros(0, dtype=torch.long))
    assert sampled.shape == (0, 3, 4)
    sampled.sum().backward()
    assert features.grad.abs().max() == 0


def test_gradients_reach_features_and_positions():
    generator = torch.Generator().manual_seed(2)
    options = {"generator": generator, "dtype": torch.float64}
    features = torch.randn(2, 2, 4, 5, **options).requires_grad_()
    points = (torch.rand(3, 2, 2, **options) * 2 + 0.3).requires_grad_()
    images = torch.tensor([0, 1, 1])
    weights = torch.randn(3, 2, 2, **options)
    (sample_points(features, points, images) * weights).sum().backward()
    step = 1e-3
    for index in [(0, 0, 0), (2, 1, 1)]:
        moved = points.detach().clone()
        moved[index] += step
        ahead = (sample_points(features, moved, images) * weights).sum()
        moved[index] -= 2 * step
        behind = (sample_points(features, moved, images) * weights).sum()
        slope = (ahead - behind) / (2 * step)
        torch.testing.assert_close(slope.item(), points.grad[index].item(), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(features.grad.sum().item(), weights.sum().item(), atol=1e-4, rtol=0)


def test_sampling_stays_in_float32_under_autocast():
    features = torch.randn(1, 2, 5, 5)
    points = torch.rand(1, 4, 4, 2) * 4
    expected = sample_maps(features, points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sampled = sample_maps(features, points)
    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled, expected)
