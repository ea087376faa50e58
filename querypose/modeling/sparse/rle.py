"""Residual log-likelihood estimation: a learned density of keypoint errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SIGMA_EPSILON = 1e-9


def _coupling_network(*, bounded: bool, hidden_dim: int) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Linear(2, hidden_dim),
        nn.LeakyReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.LeakyReLU(),
        nn.Linear(hidden_dim, 2),
    ]
    return nn.Sequential(*layers, nn.Tanh()) if bounded else nn.Sequential(*layers)


class RealNVP(nn.Module):
    """A normalizing flow in two dimensions with a standard normal prior (RLE, section 3.2).

    Args:
        num_couplings: affine couplings; their masks (0, 1), (1, 0) alternate.
        hidden_dim: width of the coupling networks.
    """

    def __init__(self, *, num_couplings: int = 6, hidden_dim: int = 64) -> None:
        super().__init__()
        masks = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat((num_couplings + 1) // 2, 1)
        self.register_buffer("masks", masks[:num_couplings])
        self.scales = nn.ModuleList(
            _coupling_network(bounded=True, hidden_dim=hidden_dim) for _ in range(num_couplings)
        )
        self.translations = nn.ModuleList(
            _coupling_network(bounded=False, hidden_dim=hidden_dim) for _ in range(num_couplings)
        )

    def log_prob(self, points: Tensor) -> Tensor:
        """Log density of (M, 2) points, (M,). M may be 0."""
        log_determinant = points.new_zeros(len(points))
        couplings = zip(self.masks, self.scales, self.translations, strict=True)
        for mask, scale, translation in reversed(list(couplings)):
            kept = mask * points
            log_scale = scale(kept) * (1 - mask)
            shift = translation(kept) * (1 - mask)
            points = (1 - mask) * (points - shift) * torch.exp(-log_scale) + kept
            log_determinant = log_determinant - log_scale.sum(dim=-1)
        prior = -0.5 * points.square().sum(dim=-1) - math.log(2 * math.pi)
        return prior + log_determinant


class ResidualLogLikelihoodLoss(nn.Module):
    """The regression loss of RLE, with a Laplace-like base density (RLE, equation 8).

    The flow and this loss stay in float32 under automatic mixed precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flow = RealNVP()

    def forward(self, coordinates: Tensor, sigmas: Tensor, targets: Tensor) -> Tensor:
        """Sums the negative log-likelihood of M keypoints.

        Args:
            coordinates: predicted, (M, 2).
            sigmas: predicted deviations, (M, 2), positive.
            targets: (M, 2), in the unit of ``coordinates``.

        Returns:
            A scalar; for M = 0 it is 0, with zero gradients.
        """
        with torch.autocast(coordinates.device.type, enabled=False):
            coordinates, sigmas, targets = (x.float() for x in (coordinates, sigmas, targets))
            errors = (coordinates - targets) / sigmas
            log_density = self.flow.log_prob(errors)
            residual = sigmas.log() - log_density[:, None]
            base = torch.log(sigmas * math.sqrt(2 * math.pi))
            base = base + (targets - coordinates).abs() / (math.sqrt(2) * sigmas + _SIGMA_EPSILON)
            return (residual + base).sum()
