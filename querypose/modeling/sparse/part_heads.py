"""From part queries to keypoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PartHeads(nn.Module):
    """Coordinates and sigmas of all keypoints, each from its part's query (paper section 3.4).

    A part with k keypoints has a coordinate head and a sigma head of 2k outputs. One tensor holds
    the heads of all parts, in the keypoint order of the dataset, so that no regrouping is needed.

    Args:
        part_dim: width of part queries.
        part_indices: the keypoints of each part.
    """

    def __init__(self, *, part_dim: int, part_indices: Sequence[Sequence[int]]) -> None:
        super().__init__()
        num_keypoints = sum(len(part) for part in part_indices)
        part_of_keypoint = torch.empty(num_keypoints, dtype=torch.long)
        for part, keypoints in enumerate(part_indices):
            part_of_keypoint[list(keypoints)] = part
        self.register_buffer("part_of_keypoint", part_of_keypoint, persistent=False)
        self.part_indices = [list(part) for part in part_indices]
        self.coordinate_weight = nn.Parameter(torch.empty(num_keypoints, 2, part_dim))
        self.coordinate_bias = nn.Parameter(torch.zeros(num_keypoints, 2))
        self.sigma_weight = nn.Parameter(torch.empty(num_keypoints, 2, part_dim))
        self.sigma_bias = nn.Parameter(torch.zeros(num_keypoints, 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws Xavier-uniform weights by the fan of each part, biases as ``nn.Linear`` does."""
        part_dim = self.coordinate_weight.shape[-1]
        with torch.no_grad():
            for keypoints in self.part_indices:
                for weight in (self.coordinate_weight, self.sigma_weight):
                    head = weight.new_empty(2 * len(keypoints), part_dim)
                    weight[keypoints] = nn.init.xavier_uniform_(head).view(-1, 2, part_dim)
        bound = part_dim**-0.5
        nn.init.uniform_(self.coordinate_bias, -bound, bound)
        nn.init.uniform_(self.sigma_bias, -bound, bound)

    def forward(self, part_queries: Tensor) -> tuple[Tensor, Tensor]:
        """Regresses (R, K, 2) coordinates and sigmas from (R, P, part_dim) part queries."""
        # Half precision would round coordinates to whole pixels on a large person.
        with torch.autocast(part_queries.device.type, enabled=False):
            tokens = part_queries.float()[:, self.part_of_keypoint]
            directed = torch.einsum("rkd,kcd->rkc", tokens, self.coordinate_weight)
            coordinates = directed / tokens.norm(dim=-1, keepdim=True) + self.coordinate_bias
            logits = torch.einsum("rkd,kcd->rkc", tokens, self.sigma_weight) + self.sigma_bias
            # The sigmoid alone would hide an infinite logit behind a certain keypoint.
            return coordinates, logits.sigmoid() + 0 * logits
