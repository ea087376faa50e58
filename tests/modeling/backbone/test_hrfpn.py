from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone

from querypose.config import add_querypose_config
from querypose.modeling.backbone.hrfpn import HRFPN, LateralHRFPN
from querypose.modeling.backbone.hrnet import HRNet


@pytest.mark.parametrize(
    ("released", "neck", "network", "unused"),
    [
        ("hrnet_w32_light", HRFPN, "hrnet_w32", {"fpn_conv.4.weight", "fpn_conv.4.bias"}),
        (
            "hrnet_w48_light",
            LateralHRFPN,
            "hrnet_w48",
            {"fpn_conv.4.weight", "lateral_conv.0.weight"},
        ),
    ],
)
def test_features_equal_the_reference(
    released, neck, network, unused, golden, load_released, assert_reference_features
):
    reference = golden(released, prefix="backbone.")
    backbone = neck(bottom_up=HRNet(name=network), out_channels=256)
    missing, unexpected = load_released(backbone, reference)
    assert missing == []
    assert set(unexpected) == unused
    assert_reference_features(backbone, reference)


@pytest.mark.parametrize(
    ("builder", "neck"),
    [
        ("build_hrnet_hrfpn_backbone", HRFPN),
        ("build_hrnet_lateral_hrfpn_backbone", LateralHRFPN),
    ],
)
def test_builder_gives_a_trainable_pyramid(builder, neck, parameters_without_gradient):
    cfg = get_cfg()
    add_querypose_config(cfg)
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.HRNET.NAME = "hrnet_w18_small"
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    backbone = build_backbone(cfg)
    assert type(backbone) is neck
    assert backbone.size_divisibility == 32
    images = torch.randn(2, 3, 64, 96)
    maps = backbone(images)
    assert list(maps) == ["p2", "p3", "p4", "p5"]
    for name, shape in backbone.output_shape().items():
        assert maps[name].shape == (2, 24, 64 // shape.stride, 96 // shape.stride)
        assert shape.channels == 24
    assert parameters_without_gradient(backbone, images) == []
