"""Where the queries of an untrained model look."""

from __future__ import annotations

import torch
from torch import Tensor

# How much taller than wide the boxes of a grid are, relative to the picture.
_UPRIGHT = 1.5


def initial_proposals(num_queries: int, kind: str) -> Tensor:
    """Boxes that queries start from before training moves them.

    Args:
        num_queries: N.
        kind: "picture", the whole of it for every query, as the method has it; or "grid", ever
            finer grids of upright boxes (1, then 2 x 2, 3 x 3, ...), from which a short training
            gets further: no two queries begin alike.

    Returns:
        (N, 4) centre, width and height in units of the picture.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind == "picture":
        return torch.tensor([0.5, 0.5, 1.0, 1.0]).expand(num_queries, 4)
    if kind != "grid":
        raise ValueError(f'MODEL.QUERYPOSE.PROPOSALS is "picture" or "grid", not {kind!r}.')
    boxes = torch.zeros(0, 4)
    divisions = 0
    while len(boxes) < num_queries:
        divisions += 1
        centres = (torch.arange(divisions) + 0.5) / divisions
        sizes = torch.tensor([1 / divisions, min(1.0, _UPRIGHT / divisions)])
        level = torch.cat(
            [torch.cartesian_prod(centres, centres), sizes.expand(divisions**2, 2)], 1
        )
        # Of the finest grid just as many as are left, spread over the picture.
        count = min(divisions**2, num_queries - len(boxes))
        boxes = torch.cat([boxes, level[torch.arange(count) * divisions**2 // count]])
    return boxes
