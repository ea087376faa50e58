"""Part queries: how they are embedded, and how they pass from stage to stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The deconvolution doubles the resolution of the RoI.
_UPSAMPLE_KERNEL, _UPSAMPLE_STRIDE, _UPSAMPLE_PADDING = 4, 2, 1
# The gates are computed at the width of a part query divided by this.
_GATE_REDUCTION = 4


class SpatialPartEmbedding(nn.Module):
    """Spatial part embedding generation module, SPEGM (paper section 3.2).

    Each part attends to places of its own in the upsampled RoI. A projection of the instance query,
    which describes the whole person, is added.

    Args:
        dim: width of RoI features and instance queries.
        part_dim: width of part embeddings.
        num_parts: P.
    """

    def __init__(self, *, dim: int, part_dim: int, num_parts: int) -> None:
        super().__init__()
        self.num_parts = num_parts
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(
                dim, dim, _UPSAMPLE_KERNEL, _UPSAMPLE_STRIDE, _UPSAMPLE_PADDING, bias=False
            ),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
        )
        self.attention_conv = nn.Conv2d(dim, num_parts, 3, padding=1)
        self.embedding = nn.Linear(dim, part_dim)
        # One projection of the instance query per part, side by side in one matrix.
        self.query_projection = nn.Linear(dim, num_parts * part_dim)

    def reset_parameters(self) -> None:
        """Draws Xavier-uniform weights, the projection of each part by its own fan."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for projection in self.query_projection.weight.chunk(self.num_parts):
            nn.init.xavier_uniform_(projection)

    def forward(self, roi_features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds the parts of R instances.

        Args:
            roi_features: (R, dim, H, W).
            queries: (R, dim).

        Returns:
            Part embeddings (R, P, part_dim) and attention maps (R, P, 2H, 2W), each summing to 1.
        """
        features = self.upsample(roi_features)
        attention = self.attention_conv(features).flatten(2).softmax(dim=-1)
        pooled = torch.bmm(attention, features.flatten(2).transpose(1, 2))
        embeddings = self.embedding(pooled)
        embeddings = embeddings + self.query_projection(queries).view_as(embeddings)
        return embeddings, attention.unflatten(-1, features.shape[-2:])


class SelectiveIteration(nn.Module):
    """Selective iteration module, SIM (paper section 3.3).

    Gates weigh, channel by channel, the new part embedding and the part query of the previous
    stage.

    Args:
        part_dim: width of part embeddings and part queries.
    """

    def __init__(self, *, part_dim: int) -> None:
        super().__init__()
        squeezed = part_dim // _GATE_REDUCTION
        self.squeeze = nn.Linear(part_dim, squeezed, bias=False)
        self.norm = nn.LayerNorm(squeezed)
        self.activation = nn.ReLU(inplace=True)
        self.gates = nn.Linear(squeezed, 2 * part_dim)

    def forward(self, embeddings: Tensor, part_queries: Tensor) -> Tensor:
        """Combines (R, P, part_dim) embeddings and part queries into new part queries."""
        hidden = self.activation(self.norm(self.squeeze(embeddings + part_queries)))
        embedding_gate, query_gate = self.gates(hidden).sigmoid().chunk(2, dim=-1)
        return embeddings * embedding_gate + part_queries * query_gate
