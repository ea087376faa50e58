import math

import pytest
import torch

from querypose.modeling.dense.gaussians import draw_gaussians


def draw(*centers, size=(40, 40), sigma=2.0):
    centers = torch.tensor(centers, dtype=torch.float32)[:, None]
    present = torch.ones(len(centers), 1, dtype=torch.bool)
    maps, windows = draw_gaussians(centers, present, size, sigma)
    return maps[0], windows[0]


def test_values_at_known_distances():
    heat, _ = draw((20.0, 20.0))
    values = [heat[20, 20], heat[20, 21], heat[21, 21], heat[18, 20]]
    torch.testing.assert_close(
        torch.stack(values), torch.tensor([1, 0.882497, 0.778801, 0.606531]), atol=1e-6, rtol=0
    )


def test_support_of_a_whole_and_of_a_broken_coordinate():
    heat, window = draw((20.0, 20.5))
    assert heat.amax(dim=0).nonzero().flatten().tolist() == list(range(13, 28))
    assert heat.amax(dim=1).nonzero().flatten().tolist() == list(range(13, 29))
    torch.testing.assert_close(window, heat > 0)


def test_overlapping_persons_give_the_maximum():
    both, _ = draw((18.0, 20.0), (21.0, 20.0))
    first, _ = draw((18.0, 20.0))
    second, _ = draw((21.0, 20.0))
    torch.testing.assert_close(both, torch.maximum(first, second))


def test_centers_beyond_the_border_show_what_is_inside():
    heat, window = draw((-3.0, 45.0))
    assert heat[39, 0].item() == pytest.approx(math.exp(-(9 + 36) / 8))
    assert window[38:, :5].all() and window.sum() == 2 * 5


def test_far_and_absent_centers_draw_nothing():
    heat, window = draw((1e9, 5.0), (-500.0, 5.0))
    assert heat.max() == 0 and not window.any()
    centers = torch.full((2, 3, 2), 5.0)
    present = torch.zeros(2, 3, dtype=torch.bool)
    present[1, 2] = True
    maps, _ = draw_gaussians(centers, present, (12, 10), 2.0)
    assert maps.shape == (3, 12, 10)
    assert maps.amax(dim=(1, 2)).tolist() == [0, 0, 1]
    nobody, _ = draw_gaussians(torch.zeros(0, 3, 2), torch.zeros(0, 3).bool(), (12, 10), 2.0)
    assert nobody.shape == (3, 12, 10) and nobody.max() == 0
