from __future__ import annotations

import torch

from querypose.modeling.sparse.part_attention import attention_centers, attention_loss


def test_attention_centers_are_box_relative():
    attention = torch.zeros(1, 3, 2, 4)
    attention[0, 0, 1, 3] = 1  # the last cell of four by two
    attention[0, 1] = 1 / 8  # everywhere
    attention[0, 2, 0, 0] = attention[0, 2, 0, 1] = 0.5  # between two cells
    expected = torch.tensor([[[0.375, 0.25], [0.0, 0.0], [-0.25, -0.25]]])
    torch.testing.assert_close(attention_centers(attention), expected)
    torch.testing.assert_close(attention_centers(attention.bfloat16()), expected)


def test_loss_is_the_cross_entropy_of_the_bilinear_share():
    attention = torch.rand(1, 2, 4)
    attention /= attention.sum()
    # A quarter of a cell to the right of the second column's center, on the upper row's center.
    point = torch.tensor([[(1.5 + 0.25) / 4 - 0.5, 0.5 / 2 - 0.5]])
    expected = -(0.75 * attention[0, 0, 1].log() + 0.25 * attention[0, 0, 2].log())
    torch.testing.assert_close(attention_loss(attention, point), expected)


def test_best_map_is_centered_on_its_target():
    point = torch.tensor([[0.13, -0.21]])
    logits = torch.zeros(1, 14 * 14, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(400):
        optimizer.zero_grad()
        attention_loss(logits.softmax(dim=1).view(1, 14, 14), point).backward()
        optimizer.step()
    attention = logits.detach().softmax(dim=1).view(1, 1, 14, 14)
    torch.testing.assert_close(attention_centers(attention)[0], point, atol=1e-3, rtol=0)


def test_certain_and_empty_maps_are_finite():
    certain = torch.zeros(1, 3, 3, requires_grad=True)
    attention_loss(certain, torch.zeros(1, 2)).backward()
    assert certain.grad.isfinite().all()
    assert attention_loss(torch.zeros(0, 1, 1), torch.zeros(0, 2)) == 0
