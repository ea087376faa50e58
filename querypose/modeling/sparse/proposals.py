"""Initial proposal boxes of the learned queries."""

from __future__ import annotations

import torch
from torch import Tensor

# Height over width of the boxes of a grid, relative to the image.
_ASPECT_RATIO = 1.5


def initial_proposals(num_queries: int, kind: str) -> Tensor:
    """The boxes that training starts from.

    Args:
        num_queries: N.
        kind: "image", the whole image for every query, as in the paper; or "grid", grids of upright
            boxes (1, then 2 x 2, 3 x 3, ...), a different box for every query, for short trainings.

    Returns:
        (N, 4) center, width and height in units of the image.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "image":
        return torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(num_queries, 4)
    if kind != "grid":
        raise ValueError(f'MODEL.QUERYPOSE.PROPOSALS must be "image" or "grid", not {kind!r}.')
    boxes = torch.zeros(0, 4)
    divisions = 0
    while len(boxes) < num_queries:
        divisions += 1
        centers = (torch.arange(divisions) + 0.5) / divisions
        sizes = torch.tensor([1 / divisions, min(1.0, _ASPECT_RATIO / divisions)])
        level = torch.cat(
            [torch.cartesian_prod(centers, centers), sizes.expand(divisions**2, 2)], 1
        )
        # The finest grid gives only the missing boxes, spread over the image.
        count = min(divisions**2, num_queries - len(boxes))
        boxes = torch.cat([boxes, level[torch.arange(count) * divisions**2 // count]])
    return boxes
