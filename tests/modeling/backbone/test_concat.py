from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_backbone

from querypose.config import default_config
from querypose.modeling.backbone.concat import concatenate_at_finest


def test_coarser_levels_are_upsampled_to_the_finest():
    finest = torch.zeros(1, 2, 4, 4)
    coarser = torch.tensor([[1.0, 3.0], [5.0, 7.0]]).view(1, 1, 2, 2)
    joined = concatenate_at_finest([finest, coarser])
    assert joined.shape == (1, 3, 4, 4)
    assert joined[0, 2, 0].tolist() == [1.0, 1.5, 2.5, 3.0]
    assert joined[0, 2, :, 0].tolist() == [1.0, 2.0, 4.0, 5.0]


def test_the_published_width_of_hrnet():
    cfg = default_config()
    cfg.MODEL.BACKBONE.NAME = "build_hrnet_concat_backbone"
    backbone = build_backbone(cfg)
    shape = backbone.output_shape()["concat"]
    assert (shape.channels, shape.stride) == (480, 4)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 29_305_536


@pytest.mark.parametrize(
    ("builder", "channels"),
    [
        ("build_hrnet_concat_backbone", 16 + 32 + 64 + 128),
        ("build_timm_concat_backbone", 24 + 40 + 112 + 320),
    ],
)
def test_builders_give_one_trainable_map(builder, channels, parameters_without_gradient):
    cfg = default_config()
    cfg.MODEL.BACKBONE.NAME = builder
    cfg.MODEL.HRNET.NAME = "hrnet_w18_small"
    cfg.MODEL.TIMM.NAME = "tf_efficientnet_lite0"
    backbone = build_backbone(cfg)
    assert backbone.size_divisibility == 32
    images = torch.randn(2, 3, 64, 96)
    maps = backbone(images)
    assert maps.keys() == backbone.output_shape().keys() == {"concat"}
    assert maps["concat"].shape == (2, channels, 16, 24)
    assert parameters_without_gradient(backbone, images) == []
