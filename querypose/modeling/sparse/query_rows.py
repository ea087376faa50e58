"""Row numbers of chosen queries among the queries of all images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flat_rows(query_indices: Tensor | Sequence[Tensor], num_queries: int) -> Tensor:
    """Rows of chosen queries in flattened (B * N, ...) tensors, (R,) int64.

    Args:
        query_indices: per image, indices below N, (R_i,) int64; or (B, R / B) where every image has
            the same number of them.
        num_queries: N.
    """
    if isinstance(query_indices, Tensor):
        first_rows = torch.arange(query_indices.shape[0], device=query_indices.device) * num_queries
        return (query_indices + first_rows[:, None]).flatten()
    return torch.cat([index + i * num_queries for i, index in enumerate(query_indices)])


def positions_among(rows: Tensor, chosen: Tensor) -> Tensor:
    """Positions of chosen rows in a list of rows, (C,) int64.

    Args:
        rows: (R,) int64, distinct, in any order.
        chosen: (C,) int64, all contained in ``rows``.
    """
    order = rows.argsort()
    return order[torch.searchsorted(rows[order], chosen)]
