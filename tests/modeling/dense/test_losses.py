import torch

from querypose.modeling.dense.losses import smooth_l1_sum, squared_error_sum


def test_smooth_l1_at_known_errors():
    errors = torch.tensor([0.05, 1 / 9, 0.5, 2.0])
    losses = [smooth_l1_sum(error, torch.tensor(0.0), torch.tensor(1.0)) for error in errors]
    expected = torch.tensor([0.01125, 0.0555556, 0.444444, 1.944444])
    torch.testing.assert_close(torch.stack(losses), expected, atol=1e-6, rtol=0)
    weighted = smooth_l1_sum(errors, torch.zeros(4), torch.tensor([1.0, 0, 2, 0]))
    torch.testing.assert_close(weighted, torch.tensor(0.01125 + 2 * 0.444444), atol=1e-5, rtol=0)


def test_squared_errors_are_weighted_and_summed():
    total = squared_error_sum(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0]), torch.tensor(0.5))
    assert total == 2.5


def test_no_entries_give_a_zero_that_still_has_a_gradient():
    predicted = torch.zeros(0, 3, requires_grad=True)
    loss = smooth_l1_sum(predicted, torch.zeros(0, 3), torch.zeros(0, 3))
    loss.backward()
    assert loss == 0
