"""The feed-forward block of a transformer layer."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, ReLU, linear, added to its input and normalised.

    Args:
        dim: width of the tokens.
        hidden_dim: width between the two linear layers.
        dropout: probability of dropping an activation.
    """

    def __init__(self, *, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.activation = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps (..., dim) tokens to (..., dim)."""
        hidden = self.dropout(self.activation(self.linear1(tokens)))
        return self.norm(tokens + self.dropout(self.linear2(hidden)))
