"""Grouped convolutions evaluated at a few cells of a map instead of at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from querypose.modeling.dense.cells import Cells, cell_positions
from querypose.modeling.dense.sampling import sample_group_points


def conv_at_cells(conv: nn.Conv2d, maps: Tensor, cells: Cells) -> Tensor:
    """The output of a zero-padded convolution of stride 1 at some cells.

    Args:
        conv: of an odd square kernel and G groups.
        maps: (B, C, H, W).
        cells: M cells.

    Returns:
        (M, G, channels of a group).
    """
    size = conv.kernel_size[0]
    offsets = cell_positions((size, size), maps.device).flatten(0, 1) - size // 2
    taps = (cells.positions[:, None] + offsets)[:, None].expand(-1, conv.groups, -1, -1)
    patches = sample_group_points(maps, taps, cells.images, mode="nearest")
    weight = conv.weight.flatten(2).unflatten(0, (conv.groups, -1))
    outputs = torch.einsum("mgti,goit->mgo", patches, weight)
    return outputs + conv.bias.view(conv.groups, -1)


def grouped_linear(conv: nn.Conv2d, features: Tensor) -> Tensor:
    """Applies a 1x1 convolution of G groups to (M, G, channels of a group) features."""
    weight = conv.weight.flatten(1).unflatten(0, (conv.groups, -1))
    return torch.einsum("mgi,goi->mgo", features, weight) + conv.bias.view(conv.groups, -1)
