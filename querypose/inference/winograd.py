"""Faster 3x3 convolutions for a trained model on a processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from querypose.inference.winograd_tiles import (
    PATCH,
    TILE,
    convolve_block,
    kernel_to_places,
    places_to_kernel,
    split_into_blocks,
)

# At input and output. With so few at both, the sums cost more than the products save.
_MIN_CHANNELS = 64
# The places of a block of tiles, before and after their products, stay in a processor's cache.
_BLOCK_BYTES = 16 * 2**20
# The places of a kernel take this many times its memory.
_GROWTH = PATCH**2 / 9


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 and padding 1 by Winograd's F(4x4, 3x3).

    It is for inference in float32 on a processor, and keeps the transformed weights alone, which
    take four times the memory. Gradients, tracing, compilation, other devices and types are left to
    a plain convolution, whose weights are computed back at every call, which is slow. The state
    dict is that of the replaced convolution.

    Args:
        conv: what to replace.
        relu: apply ReLU to the output.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.bias = conv.bias
        self.register_buffer("places", kernel_to_places(conv.weight.detach()), persistent=False)

    @property
    def weight(self) -> Tensor:
        """Of the plain convolution, (out channels, in channels, 3, 3), up to float rounding."""
        return places_to_kernel(self.places)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolves (N, in channels, H, W) to (N, out channels, H, W), stored channels-last."""
        if self._needs_plain(maps):
            convolved = F.conv2d(maps, self.weight, self.bias, padding=1)
            return convolved.relu_() if self.relu else convolved
        # Under autocast a product would lose digits that the sums then miss.
        with torch.autocast("cpu", enabled=False):
            pixels = maps.float().permute(0, 2, 3, 1)
            output = pixels.new_empty(*pixels.shape[:3], self.places.shape[2])
            num_maps, height, width, _ = output.shape
            max_tiles = _BLOCK_BYTES // (4 * PATCH**2 * sum(self.places.shape[1:]))
            rows, columns = -(-height // TILE), -(-width // TILE)
            for block in split_into_blocks(num_maps, rows, columns, max_tiles):
                convolve_block(pixels, self.places, self.bias, output, block, relu=self.relu)
        return output.permute(0, 3, 1, 2)

    def _needs_plain(self, maps: Tensor) -> bool:
        needs_gradients = maps.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return (
            maps.device.type != "cpu"
            or self.places.dtype != torch.float32
            or (torch.is_grad_enabled() and needs_gradients)
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
        )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        destination[f"{prefix}weight"] = self.weight
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Tensor],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name = f"{prefix}weight"
        others = dict(state_dict)
        weight = others.pop(name, None)
        shape = (self.places.shape[2], self.places.shape[1], 3, 3)
        if weight is None:
            missing_keys.append(name)
        elif weight.shape != shape:
            error_msgs.append(f"{name} must be of shape {shape}, not {tuple(weight.shape)}.")
        else:
            self.places.copy_(kernel_to_places(weight.detach()))
        super()._load_from_state_dict(
            others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


@torch.no_grad()
def use_winograd(model: nn.Module, max_growth: float) -> int:
    """Replaces the convolutions that profit, in place, from the smallest weights on.

    The smallest belong to the largest maps, where they save the most time per byte.

    Args:
        model: in evaluation mode; its batch norms should be folded before.
        max_growth: limit of the added memory, as a share of that of all parameters.

    Returns:
        Number of replaced convolutions.
    """
    budget = max_growth * sum(parameter.nbytes for parameter in model.parameters())
    chosen = []
    for conv in sorted(filter(_profits, model.modules()), key=lambda conv: conv.weight.nbytes):
        budget -= (_GROWTH - 1) * conv.weight.nbytes
        if budget < 0:
            break
        chosen.append(conv)
    # Modules may share a convolution.
    replacements: dict[nn.Module, WinogradConv2d] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in chosen and child not in replacements:
                replacements[child] = WinogradConv2d(child)
            if child in replacements:
                setattr(parent, name, replacements[child])
    for parent in model.modules():
        _replace_in_lists(parent, replacements)
    _fuse_activations(model)
    return len(replacements)


def _replace_in_lists(parent: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Replaces what a module calls by a plain list, as Detectron2's FPN does its convolutions."""
    for values in vars(parent).values():
        if isinstance(values, list):
            for index, value in enumerate(values):
                if isinstance(value, nn.Module):
                    values[index] = replacements.get(value, value)


def _fuse_activations(model: nn.Module) -> None:
    uses = Counter(child for parent in model.modules() for child in parent._modules.values())
    for sequence in model.modules():
        if isinstance(sequence, nn.Sequential):
            for (_, conv), (name, activation) in pairwise(list(sequence._modules.items())):
                fusible = isinstance(conv, WinogradConv2d) and uses[conv] == 1
                if fusible and type(activation) is nn.ReLU:
                    conv.relu = True
                    sequence._modules[name] = nn.Identity()


def _profits(module: nn.Module) -> bool:
    """Whether a module is a convolution that is faster by Winograd on a processor."""
    # Subclasses may transform their weights before the convolution.
    return (
        type(module) in (nn.Conv2d, Conv2d)
        and getattr(module, "norm", None) is None
        and getattr(module, "activation", None) is None
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == module.padding == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= _MIN_CHANNELS
        and module.in_channels + module.out_channels >= 3 * _MIN_CHANNELS
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )
