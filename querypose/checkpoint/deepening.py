"""A deeper keypoint decoder that starts as the shallower one (Net2DeeperNet, Chen et al. 2016)."""

from __future__ import annotations

import re
from collections import Counter

from torch import Tensor, nn

_CONV = re.compile(r"(decoder\.keypoint_stages\.\d+\.convs\.)\d+\.weight")
# Convolutions alternate with activations.
_LAYERS_PER_CONV = 2


def deepen_keypoint_convs(state_dict: dict[str, Tensor], num_convs: int) -> dict[str, Tensor]:
    """Puts convolutions that change nothing before the last one of every keypoint stage.

    An identity does not change what an activation has made non-negative, so that the model computes
    what it did before, and has more to learn with.

    Args:
        state_dict: a model's.
        num_convs: ``MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS`` of the deeper model.

    Returns:
        The deeper model's weights.

    Raises:
        ValueError: there are no keypoint stages, they have no convolution before their last one, or
            as many as ``num_convs`` or more.
    """
    stages = Counter(found[1] for name in state_dict if (found := _CONV.fullmatch(name)))
    if not stages:
        raise ValueError("These weights have no keypoint convolutions.")
    deeper = dict(state_dict)
    for stage, present in stages.items():
        if not 2 <= present < num_convs:
            raise ValueError(
                f"{present} keypoint convolutions cannot become {num_convs}: they can only become "
                "more, and must be at least 2."
            )
        last, new_last = (_LAYERS_PER_CONV * (count - 1) for count in (present, num_convs))
        moved = {kind: deeper.pop(f"{stage}{last}.{kind}") for kind in ("weight", "bias")}
        _, width, *kernel = moved["weight"].shape
        for layer in range(last, new_last, _LAYERS_PER_CONV):
            identity = moved["weight"].new_empty(width, width, *kernel)
            deeper[f"{stage}{layer}.weight"] = nn.init.dirac_(identity)
            deeper[f"{stage}{layer}.bias"] = identity.new_zeros(width)
        for kind, value in moved.items():
            deeper[f"{stage}{new_last}.{kind}"] = value
    return deeper
