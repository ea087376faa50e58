"""The feed-forward block of a transformer layer."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, ReLU, linear, added to its input and normalized.

    Args:
        dim: width of the tokens.
        hidden_dim: width between the two linear layers.
    """

    def __init__(self, *, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.activation = nn.ReLU(inplace=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps (..., dim) tokens to (..., dim)."""
        hidden = self.activation(self.linear1(tokens))
        return self.norm(tokens + self.linear2(hidden))
