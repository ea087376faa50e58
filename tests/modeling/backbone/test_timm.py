from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from querypose.config import add_querypose_config
from querypose.modeling.backbone.timm import TimmBackbone


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [64, 128, 256, 512]),
        ("tf_efficientnet_lite0", [24, 40, 112, 320]),
        ("mobilenetv3_small_050", [8, 16, 24, 288]),
        ("convnext_atto", [40, 80, 160, 320]),
        ("swin_tiny_patch4_window7_224", [96, 192, 384, 768]),
        ("selecsls42", [128, 288, 480, 1024]),
        # Declared as a network of a fixed size, but takes any.
        ("swiftformer_xs", [48, 56, 112, 220]),
    ],
)
def test_maps_have_the_declared_shapes(name, channels, parameters_without_gradient):
    backbone = TimmBackbone(name=name)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = backbone.eval()(images)
    shapes = backbone.output_shape()
    assert list(maps) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]
    assert [shape.channels for shape in shapes.values()] == channels
    for feature, shape in shapes.items():
        expected = (2, shape.channels, 64 // shape.stride, 96 // shape.stride)
        assert maps[feature].shape == expected
    assert parameters_without_gradient(backbone, images) == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_frozen_batch_norm_keeps_its_statistics_in_training(name, fill_batch_norms):
    trained = fill_batch_norms(TimmBackbone(name=name))
    frozen = TimmBackbone(name=name, freeze_bn=True)
    missing, _ = frozen.load_state_dict(trained.state_dict(), strict=False)
    assert missing == []
    assert any(isinstance(module, nn.BatchNorm2d) for module in trained.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = trained.eval()(images)
        actual = frozen.train()(images)
    for feature, value in expected.items():
        torch.testing.assert_close(actual[feature], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "frozen", "trained"),
    [
        ("resnet18", ("conv1.", "bn1.", "layer1.", "layer2."), ("layer3.", "layer4.")),
        ("tf_efficientnet_lite0", ("conv_stem.", "bn1.", "blocks.0."), ("blocks.3.", "blocks.6.")),
        ("convnext_atto", ("stem.", "stages.0.", "stages.1."), ("stages.2.", "stages.3.")),
    ],
)
def test_frozen_maps_keep_the_weights_that_lead_to_them(name, frozen, trained):
    network = TimmBackbone(name=name, freeze_at=2).network
    gradients = {key: parameter.requires_grad for key, parameter in network.named_parameters()}
    assert not any(needed for key, needed in gradients.items() if key.startswith(frozen))
    assert all(needed for key, needed in gradients.items() if key.startswith(trained))


def test_more_frozen_maps_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.FREEZE_AT must be within 0\.\.4, not 5"):
        TimmBackbone(name="resnet18", freeze_at=5)


def test_unknown_name_suggests_close_ones():
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.NAME.*'resnet_18'.*resnet18"):
        TimmBackbone(name="resnet_18")
    with pytest.raises(ValueError, match=r"'zzzzzz'; see timm\.list_models"):
        TimmBackbone(name="zzzzzz")


def test_network_without_a_pyramid_is_refused():
    with pytest.raises(ValueError, match=r"'shvit_s1'.*strides \[16, 32, 64\].*resnet50"):
        TimmBackbone(name="shvit_s1")


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "halonet26t"])
def test_network_of_some_image_sizes_is_refused(name):
    with pytest.raises(ValueError, match=rf"'{name}' does not take images of any size"):
        TimmBackbone(name=name)


def test_network_that_cuts_borders_off_is_refused():
    with pytest.raises(ValueError, match=r"'inception_v4'.*\[\(22, 38\), .*, not of \[\(24, 40\),"):
        TimmBackbone(name="inception_v4")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The settings of the client of timm's hub, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return partial(monkeypatch.setattr, constants)


def test_pretrained_weights_come_from_timms_hub(hub, server):
    network = timm.create_model("test_resnet")
    file = server.folder / "timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(network.state_dict(), file)
    # What the client looks for in an answer.
    server.headers = {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
    hub("ENDPOINT", server.address)
    hub("HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}")
    found = TimmBackbone(name="test_resnet", pretrained=True).network.state_dict()
    expected = network.state_dict()
    assert len(found) > 50
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_pretrained_weights_without_a_network(hub):
    hub("HF_HUB_OFFLINE", True)
    message = r"MODEL\.TIMM\.PRETRAINED: timm's weights of 'test_resnet' cannot be downloaded \(.*"
    with pytest.raises(OSError, match=message) as raised:
        TimmBackbone(name="test_resnet", pretrained=True)
    sentence = str(raised.value)
    assert sentence.endswith("; set the key to False, or name a file in MODEL.WEIGHTS.")
    assert "\n" not in sentence


def test_a_network_without_pretrained_weights_is_named():
    with pytest.raises(OSError, match=r"'selecsls42' cannot .*\(No pretrained weights exist"):
        TimmBackbone(name="selecsls42", pretrained=True)


def test_builder_gives_a_trainable_pyramid(parameters_without_gradient):
    cfg = get_cfg()
    add_querypose_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.TIMM.NAME = "mobilenetv3_small_050"
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    backbone = build_backbone(cfg)
    assert backbone.size_divisibility == 32
    images = torch.randn(2, 3, 64, 96)
    maps = backbone(images)
    assert [tuple(maps[name].shape[-2:]) for name in ("p2", "p3", "p4", "p5")] == [
        (16, 24),
        (8, 12),
        (4, 6),
        (2, 3),
    ]
    assert parameters_without_gradient(backbone, images) == []
