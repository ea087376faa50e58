"""Dynamic convolution: a query makes the filters for its own region of interest."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DynamicConv(nn.Module):
    """Interaction of an instance query with its RoI features (Sparse R-CNN, section 3.2).

    A linear layer turns the query into two 1x1 convolutions, from ``dim`` to ``dynamic_dim``
    channels and back, which run on the RoI features one after the other.

    Args:
        dim: width of queries and of RoI features.
        dynamic_dim: width between the two convolutions.
        num_positions: height times width of the RoI.
    """

    def __init__(self, *, dim: int, dynamic_dim: int, num_positions: int) -> None:
        super().__init__()
        self.dim = dim
        self.dynamic_dim = dynamic_dim
        self.dynamic_layer = nn.Linear(dim, 2 * dim * dynamic_dim)
        self.norm1 = nn.LayerNorm(dynamic_dim)
        self.norm2 = nn.LayerNorm(dim)
        self.out_layer = nn.Linear(num_positions * dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, queries: Tensor, roi_features: Tensor) -> Tensor:
        """Convolves the RoI of each query.

        Args:
            queries: (R, dim).
            roi_features: (R, dim, H, W) with H * W = ``num_positions``.

        Returns:
            (R, dim), the update of the queries, not yet added to them.
        """
        positions = roi_features.flatten(2).transpose(1, 2)
        filters = self.dynamic_layer(queries)
        squeeze, expand = filters.split(self.dim * self.dynamic_dim, dim=1)
        squeeze = squeeze.reshape(-1, self.dim, self.dynamic_dim)
        expand = expand.reshape(-1, self.dynamic_dim, self.dim)

        hidden = self.activation(self.norm1(torch.bmm(positions, squeeze)))
        hidden = self.activation(self.norm2(torch.bmm(hidden, expand)))
        return self.activation(self.norm3(self.out_layer(hidden.flatten(1))))
