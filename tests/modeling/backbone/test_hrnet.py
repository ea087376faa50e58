from __future__ import annotations

import pytest
import torch
from torch import nn

from querypose.modeling.backbone.hrnet import HRNet


def test_outputs_are_the_four_branches():
    network = HRNet(name="hrnet_w18_small", in_channels=1).eval()
    with torch.no_grad():
        maps = network(torch.randn(2, 1, 64, 96))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "res2": (2, 16, 16, 24),
        "res3": (2, 32, 8, 12),
        "res4": (2, 64, 4, 6),
        "res5": (2, 128, 2, 3),
    }
    declared = {
        name: (shape.channels, shape.stride) for name, shape in network.output_shape().items()
    }
    assert declared == {"res2": (16, 4), "res3": (32, 8), "res4": (64, 16), "res5": (128, 32)}
    assert network.size_divisibility == 32


def test_batch_norm_is_trained():
    norms = [m for m in HRNet(name="hrnet_w18_small").modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(norm.weight.requires_grad for norm in norms)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"MODEL\.HRNET\.NAME.*'hrnet_w33'.*hrnet_w32"):
        HRNet(name="hrnet_w33")
