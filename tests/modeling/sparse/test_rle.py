from __future__ import annotations

import math

import pytest
import torch

from querypose.modeling.sparse.rle import RealNVP, ResidualLogLikelihoodLoss


@pytest.fixture
def flow() -> RealNVP:
    """A flow far from the identity, in double precision."""
    torch.manual_seed(0)
    flow = RealNVP().double()
    with torch.no_grad():
        for network in (*flow.scales, *flow.translations):
            network[4].weight.mul_(2)
            network[4].bias.normal_(std=0.3)
    return flow


def _push_forward(flow: RealNVP, latent: torch.Tensor) -> torch.Tensor:
    """One latent point through all couplings, in the direction in which a flow samples."""
    point = latent
    for mask, scale, translation in zip(flow.masks, flow.scales, flow.translations, strict=True):
        kept = mask * point
        moved = point * scale(kept).exp() + translation(kept)
        point = kept + (1 - mask) * moved
    return point


def test_density_equals_the_change_of_variables(flow):
    torch.manual_seed(1)
    distances = []
    for latent in torch.randn(8, 2, dtype=torch.float64):
        point = _push_forward(flow, latent)
        jacobian = torch.autograd.functional.jacobian(lambda z: _push_forward(flow, z), latent)
        prior = -latent.square().sum() / 2 - math.log(2 * math.pi)
        expected = prior - jacobian.det().abs().log()
        torch.testing.assert_close(flow.log_prob(point[None])[0], expected)
        distances.append((point - latent).norm().item())
    assert max(distances) > 0.5, "the flow under test is almost the identity"


def test_density_integrates_to_one(flow):
    axis = torch.linspace(-9, 9, 241, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(points).exp()
    cell = (axis[1] - axis[0]) ** 2
    assert (density.sum() * cell).item() == pytest.approx(1, abs=1e-3)
    normal = torch.exp(-points.square().sum(dim=-1) / 2) / (2 * math.pi)
    assert ((density - normal).abs().sum() * cell).item() > 0.2


def test_masks_alternate_and_travel_with_the_weights():
    assert RealNVP(num_couplings=3).state_dict()["masks"].tolist() == [[0, 1], [1, 0], [0, 1]]


@pytest.fixture
def standard_normal_loss() -> ResidualLogLikelihoodLoss:
    """The loss whose flow is the identity."""
    loss = ResidualLogLikelihoodLoss()
    for network in (*loss.flow.scales, *loss.flow.translations):
        torch.nn.init.zeros_(network[4].weight)
        torch.nn.init.zeros_(network[4].bias)
    return loss


def test_loss_of_a_standard_normal_flow_by_hand(standard_normal_loss):
    coordinates = [(0.1, -0.2), (0.4, 0.0)]
    sigmas = [(0.5, 0.25), (0.1, 0.9)]
    targets = [(0.0, 0.3), (0.5, 0.0)]
    expected = 0.0
    for mean, sigma, target in zip(coordinates, sigmas, targets, strict=True):
        errors = [(m - t) / s for m, s, t in zip(mean, sigma, target, strict=True)]
        log_density = -sum(error**2 for error in errors) / 2 - math.log(2 * math.pi)
        for m, s, t in zip(mean, sigma, target, strict=True):
            expected += math.log(s) - log_density
            expected += math.log(s * math.sqrt(2 * math.pi)) + abs(t - m) / (
                math.sqrt(2) * s + 1e-9
            )
    values = (torch.tensor(rows) for rows in (coordinates, sigmas, targets))
    assert standard_normal_loss(*values).item() == pytest.approx(expected, rel=1e-5)


def test_density_of_a_pair_enters_both_coordinates(standard_normal_loss):
    """Twice the flow's log density, not once per keypoint."""
    with torch.no_grad():
        standard_normal_loss.flow.scales[0][4].bias.fill_(0.5)
    arguments = torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, 2)
    # The first coupling scales x alone, by exp(tanh(0.5)).
    log_density = -math.log(2 * math.pi) - math.tanh(0.5)
    expected = 2 * (math.log(math.sqrt(2 * math.pi)) - log_density)
    assert standard_normal_loss(*arguments).item() == pytest.approx(expected, rel=1e-5)


def test_nothing_gives_zero_and_zero_gradients():
    loss = ResidualLogLikelihoodLoss()
    inputs = [torch.zeros(0, 2, requires_grad=True) for _ in range(2)]
    value = loss(*inputs, torch.zeros(0, 2))
    assert value.item() == 0
    value.backward()
    for tensor in (*loss.parameters(), *inputs):
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


def test_gradients_reach_coordinates_sigmas_and_flow():
    torch.manual_seed(0)
    loss = ResidualLogLikelihoodLoss()
    coordinates = torch.randn(5, 2, requires_grad=True)
    sigmas = torch.rand(5, 2).add(0.1).requires_grad_()
    loss(coordinates, sigmas, torch.randn(5, 2)).backward()
    assert all((tensor.grad != 0).any() for tensor in (coordinates, sigmas, *loss.parameters()))


def test_half_precision_never_touches_it():
    torch.manual_seed(0)
    loss = ResidualLogLikelihoodLoss()
    arguments = torch.randn(5, 2), torch.rand(5, 2) + 0.1, torch.randn(5, 2)
    rounded = [argument.bfloat16() for argument in arguments]
    expected = loss(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        actual, from_half = loss(*arguments), loss(*rounded)
    assert actual.dtype == from_half.dtype == torch.float32
    assert torch.equal(actual, expected)
    assert torch.equal(from_half, loss(*(value.float() for value in rounded)))
