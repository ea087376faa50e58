from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_backbone

from querypose.config import default_config


def swin_config(**changes: object):
    cfg = default_config()
    cfg.MODEL.BACKBONE.NAME = "build_swin_fpn_backbone"
    cfg.MODEL.FPN.OUT_CHANNELS = 256
    for key, value in changes.items():
        cfg.MODEL.SWIN[key] = value
    return cfg


def test_features_equal_the_reference(golden, load_released, assert_reference_features):
    reference = golden("swin_t_light", prefix="backbone.")
    backbone = build_backbone(swin_config())
    # The reference weights leave out the index buffers, whose values follow from the window.
    missing, unexpected = load_released(backbone, reference)
    assert {name.rsplit(".", 1)[1] for name in missing} == {"relative_position_index"}
    assert unexpected == []
    assert_reference_features(backbone, reference)


@pytest.mark.parametrize("size", [(97, 131), (30, 33), (5, 3)])
def test_any_size_gives_rounded_up_maps(size):
    network = build_backbone(swin_config(EMBED_DIM=16, NUM_HEADS=[1, 2, 4, 8])).bottom_up.eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, *size))
    for name, shape in network.output_shape().items():
        expected = [-(-side // shape.stride) for side in size]
        assert list(maps[name].shape) == [1, shape.channels, *expected]
        assert maps[name].isfinite().all()


@pytest.mark.parametrize("num_heads", [[3, 6, 12], [3, 6, 12, 25]])
def test_heads_that_do_not_fit_the_stages_are_refused(num_heads):
    with pytest.raises(ValueError, match=r"NUM_HEADS.*4 stages.*\[96, 192, 384, 768\]"):
        build_backbone(swin_config(NUM_HEADS=num_heads))


def test_builder_gives_a_trainable_pyramid(parameters_without_gradient):
    cfg = swin_config(EMBED_DIM=16, NUM_HEADS=[1, 2, 4, 8], DROP_PATH_RATE=0.0)
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    backbone = build_backbone(cfg)
    assert backbone.size_divisibility == 32
    assert list(backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    images = torch.randn(2, 3, 64, 96)
    maps = backbone(images)
    for name in ("p2", "p3", "p4", "p5"):
        stride = backbone.output_shape()[name].stride
        assert maps[name].shape == (2, 24, 64 // stride, 96 // stride)
    assert parameters_without_gradient(backbone, images) == []
