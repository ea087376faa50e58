"""Where the queries of an untrained model look."""

from __future__ import annotations

import torch
from torch import Tensor

# How much taller than wide the boxes of a grid are, relative to the image.
_UPRIGHT = 1.5


def initial_proposals(num_queries: int, kind: str) -> Tensor:
    """Boxes that queries start from before training moves them.

    Args:
        num_queries: N.
        kind: "image", the whole of it for every query, as the method has it; or "grid", ever
            finer grids of upright boxes (1, then 2 x 2, 3 x 3, ...), from which a short training
            gets further: no two queries begin alike.

    Returns:
        (N, 4) center, width and height in units of the image.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "image":
        return torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(num_queries, 4)
    if kind != "grid":
        raise ValueError(f'MODEL.QUERYPOSE.PROPOSALS is "image" or "grid", not {kind!r}.')
    boxes = torch.zeros(0, 4)
    divisions = 0
    while len(boxes) < num_queries:
        divisions += 1
        centers = (torch.arange(divisions) + 0.5) / divisions
        sizes = torch.tensor([1 / divisions, min(1.0, _UPRIGHT / divisions)])
        level = torch.cat(
            [torch.cartesian_prod(centers, centers), sizes.expand(divisions**2, 2)], 1
        )
        # Of the finest grid just as many as are left, spread over the image.
        count = min(divisions**2, num_queries - len(boxes))
        boxes = torch.cat([boxes, level[torch.arange(count) * divisions**2 // count]])
    return boxes
