"""The average of two trainings' weights (model soups, Wortsman et al., ICML 2022)."""

from __future__ import annotations

from torch import Tensor


def average_weights(state_dict: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """Averages two sets of a model's weights, such as those before and after further training.

    Args:
        state_dict: a model's; what is not a float is taken from here.
        other: of the same model.

    Returns:
        Weights of the precision of ``state_dict``.

    Raises:
        ValueError: the two are not of one model.
    """
    shapes, other_shapes = (
        {name: value.shape for name, value in weights.items()} for weights in (state_dict, other)
    )
    if shapes != other_shapes:
        differing = {name for name, _ in shapes.items() ^ other_shapes.items()}
        raise ValueError(
            f"Weights of two different models cannot be averaged; they differ in {min(differing)}."
        )
    return {
        name: value.float().lerp(other[name].float(), 0.5).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in state_dict.items()
    }
