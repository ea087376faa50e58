"""Folding of the batch norms of a trained model into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from timm.layers import Conv2dSame, FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

# timm's BatchNormAct2d is a BatchNorm2d; its frozen norms are of the last two classes.
_BATCH_NORMS = (
    nn.BatchNorm2d,
    FrozenBatchNorm2d,
    FrozenBatchNormAct2d,
    TorchvisionFrozenBatchNorm2d,
)
# Subclasses may transform their weights before the convolution.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
# In pixels; only the path of the image through the network matters.
_PROBE_SIZE = 64


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> int:
    """Folds every batch norm that directly follows a convolution into it, in place.

    Args:
        model: a Detectron2 meta-architecture in evaluation mode; an image goes through its
            ``backbone``.

    Returns:
        Number of folded batch norms.
    """
    folded = 0
    for module in list(model.modules()):
        # Detectron2's convolution calls its norm itself.
        if isinstance(module, nn.Conv2d) and isinstance(
            getattr(module, "norm", None), _BATCH_NORMS
        ):
            _fold(module, module.norm)
            module.norm = None
            folded += 1
        if isinstance(module, nn.Sequential):
            folded += _fold_sequence(module)
    return folded + _fold_traced(model.backbone, torch.zeros_like(model.pixel_mean))


def _fold_sequence(sequence: nn.Sequential) -> int:
    folded = 0
    names = list(sequence._modules)
    for before, after in pairwise(names):
        conv, norm = sequence._modules[before], sequence._modules[after]
        is_conv = type(conv) in (*_CONVOLUTIONS, nn.ConvTranspose2d)
        if is_conv and isinstance(norm, _BATCH_NORMS):
            _fold(conv, norm)
            sequence._modules[after] = _remainder(norm)
            folded += 1
    return folded


def _fold_traced(backbone: nn.Module, pixel: Tensor) -> int:
    """Folds each norm that is the only user of a convolution, as traced in a forward pass.

    Networks of other libraries connect layers of any names in their forward pass.

    Args:
        backbone: maps images to a dictionary of features.
        pixel: of a probe image, (channels, 1, 1).
    """
    pairs = _trace(backbone, pixel.expand(1, -1, _PROBE_SIZE, _PROBE_SIZE))
    names = {module: name for name, module in backbone.named_modules()}
    for conv, norm in pairs:
        _fold(conv, norm)
        parent, _, child = names[norm].rpartition(".")
        setattr(backbone.get_submodule(parent), child, _remainder(norm))
    return len(pairs)


def _trace(backbone: nn.Module, images: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of a convolution and the batch norm that is its only user; both run once.

    There are none under ``torch.inference_mode``, which records no graph.
    """
    if torch.is_inference_mode_enabled():
        return []
    convolved: dict[Node, nn.Module] = {}
    fed: list[tuple[Node, nn.Module]] = []
    runs: Counter[nn.Module] = Counter()

    def after_convolution(conv: nn.Module, _: Any, output: Tensor) -> None:
        runs[conv] += 1
        convolved[output.grad_fn] = conv

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[norm] += 1
        fed.append((inputs[0].grad_fn, norm))

    handles = []
    for module in backbone.modules():
        if type(module) in _CONVOLUTIONS:
            handles.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, _BATCH_NORMS):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        with torch.enable_grad():
            features = backbone(images.clone().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    uses = _count_uses(features.values())
    return [
        (convolved[node], norm)
        for node, norm in fed
        if node in convolved and uses[node] == runs[convolved[node]] == runs[norm] == 1
    ]


def _count_uses(outputs: Iterable[Tensor]) -> Counter[Node]:
    """How often the result of each step of a computation is used, outputs included."""
    queue = [output.grad_fn for output in outputs]
    uses = Counter(queue)
    seen = set(queue)
    while queue:
        sources = [source for source, _ in queue.pop().next_functions if source is not None]
        uses.update(sources)
        queue += set(sources) - seen
        seen.update(sources)
    return uses


def _remainder(norm: nn.Module) -> nn.Module:
    """What a batch norm does besides normalizing: timm's may drop and activate."""
    if hasattr(norm, "act"):
        return nn.Sequential(norm.drop, norm.act)
    return nn.Identity()


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, nn.ConvTranspose2d),
    )
