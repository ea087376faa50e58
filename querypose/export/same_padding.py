"""TensorFlow's "same" padding with fixed numbers."""

from __future__ import annotations

from timm.layers import Conv2dSame
from torch import nn


def fix_same_padding(model: nn.Module) -> None:
    """Gives timm's "same" convolutions the padding of maps that their strides divide, in place.

    timm computes the padding from the size of each map. In an exported graph this takes several
    operations a layer, and the exporter needs hours for the formulas. A model pads its images to
    multiples of 32, so that every stride divides the size of its map; then the padding is constant.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv2dSame):
                setattr(parent, name, _fixed(child))


def _fixed(conv: Conv2dSame) -> nn.Sequential:
    totals = [
        max(dilation * (kernel - 1) + 1 - stride, 0)
        for kernel, stride, dilation in zip(
            conv.kernel_size, conv.stride, conv.dilation, strict=True
        )
    ]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain)
