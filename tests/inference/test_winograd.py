"""Winograd's convolutions equal plain ones, and stand where they pay."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from torch import nn
from torch.nn import functional as F

from querypose.inference.acceleration import prepare_for_inference
from querypose.inference.winograd import WinogradConv2d, use_winograd
from querypose.inference.winograd_tiles import split_into_blocks


@pytest.fixture
def conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(128, 160, 3, padding=1)


def draw_maps(*size: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(size)


# Smaller than a tile, of whole tiles, with a rest, and of several blocks.
SIZES = [(1, 1), (2, 3), (8, 4), (14, 14), (105, 65)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@torch.no_grad()
def test_equals_a_plain_convolution(conv, size, relu):
    maps = draw_maps(1, 128, *size)
    expected = F.conv2d(maps.double(), conv.weight.double(), conv.bias.double(), padding=1)
    if relu:
        expected = expected.relu()
    found = WinogradConv2d(conv, relu=relu)(maps)
    error = (found - expected).abs().max() / expected.abs().max()
    assert found.dtype == torch.float32 and error < 2e-5


@torch.no_grad()
def test_layout_batch_and_bias_do_not_matter():
    conv = nn.Conv2d(128, 128, 3, padding=1, bias=False)
    fast = WinogradConv2d(conv)
    maps = draw_maps(40, 128, 14, 14)
    expected = conv(maps)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = fast(maps.contiguous(memory_format=layout))
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert fast(maps[:0]).shape == (0, 128, 14, 14)
    torch.testing.assert_close(
        fast(maps[3:4, :, 2:9, 1:]), conv(maps[3:4, :, 2:9, 1:]), rtol=0, atol=5e-5
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 4, 4), (3, 32, 40), (2, 7, 500)], ids=str)
def test_blocks_cover_every_tile_once(shape):
    num_maps, rows, columns = shape
    seen = torch.zeros(num_maps, rows, dtype=torch.int64)
    for block in split_into_blocks(num_maps, rows, columns, 100):
        seen[block.maps, block.rows] += 1
        assert seen[block.maps, block.rows].numel() * columns <= max(100, columns)
    assert (seen == 1).all()


def test_gradients_and_exports_are_those_of_a_plain_convolution(conv):
    fast = WinogradConv2d(conv)
    maps = draw_maps(1, 128, 6, 6).requires_grad_()
    (expected,) = torch.autograd.grad(conv(maps).square().sum(), maps)
    (found,) = torch.autograd.grad(fast(maps).square().sum(), maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        exported = torch.export.export(fast, (maps.detach(),))
        called = {str(node.target) for node in exported.graph.nodes}
        assert any("conv2d" in name for name in called)
        assert not any("bmm" in name for name in called)
        torch.testing.assert_close(exported.module()(maps), conv(maps), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_autocast_keeps_the_digits(conv):
    maps = draw_maps(1, 128, 12, 12)
    fast = WinogradConv2d(conv)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fast(maps)
    torch.testing.assert_close(found, conv(maps), rtol=0, atol=1e-4)


def test_weights_are_saved_and_loaded_as_before(conv):
    fast = WinogradConv2d(conv)
    saved = fast.state_dict()
    assert set(saved) == {"weight", "bias"}
    torch.testing.assert_close(saved["weight"], conv.weight.detach(), rtol=0, atol=1e-6)
    other = nn.Conv2d(128, 160, 3, padding=1)
    fast.load_state_dict(other.state_dict())
    maps = draw_maps(1, 128, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(fast(maps), other(maps), rtol=0, atol=5e-5)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "weight"'):
        fast.load_state_dict({"bias": other.bias})
    narrow = nn.Conv2d(128, 128, 3, padding=1, bias=False).weight
    with pytest.raises(RuntimeError, match=r"weight must be of shape \(160, 128, 3, 3\), not"):
        fast.load_state_dict({"weight": narrow, "bias": other.bias})


def network() -> nn.Module:
    """One convolution used twice, one with an activation, and many that cannot be replaced."""
    shared = nn.Conv2d(128, 128, 3, padding=1)
    return nn.Sequential(
        nn.Sequential(shared, nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(256, 128, 1), shared, nn.ReLU()),
        nn.Conv2d(128, 128, 3, stride=2, padding=1),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 17, 3, padding=1),
    ).eval()


@torch.no_grad()
def test_all_and_only_convolutions_that_profit_are_replaced():
    plain = network()
    fast = copy.deepcopy(plain)
    assert use_winograd(fast, 10.0) == 3
    assert isinstance(fast[0][1], WinogradConv2d) and fast[0][1].relu
    assert isinstance(fast[6], WinogradConv2d)
    assert fast[0][0] is fast[1][1] and not fast[0][0].relu
    maps = draw_maps(1, 128, 20, 20)
    torch.testing.assert_close(fast(maps), plain(maps), rtol=0, atol=5e-5)


@torch.no_grad()
def test_convolutions_that_an_fpn_keeps_in_a_list_are_replaced():
    cfg = get_cfg()
    levels = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = cfg.MODEL.RESNETS.OUT_FEATURES = levels
    plain = build_resnet_fpn_backbone(cfg, ShapeSpec(channels=3)).eval()
    fast = copy.deepcopy(plain)
    use_winograd(fast, 100.0)
    called = []
    for module in fast.modules():
        if isinstance(module, WinogradConv2d):
            module.register_forward_hook(lambda module, *_: called.append(module))
    images = draw_maps(1, 3, 64, 64)
    expected, maps = plain(images), fast(images)
    assert {fast.fpn_output2, fast.fpn_output3} <= set(called)
    for name, values in maps.items():
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-5 * largest)


def test_memory_grows_within_the_limit():
    model = nn.Sequential(
        *(nn.Conv2d(128, width, 3, padding=1) for width in (512, 256)),
    )
    weights = [3 * conv.weight.nbytes for conv in model]
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    assert use_winograd(copy.deepcopy(model), 0.0) == 0
    one = copy.deepcopy(model)
    assert use_winograd(one, 1.01 * weights[1] / parameters) == 1
    assert isinstance(one[1], WinogradConv2d)
    assert use_winograd(model, 1.01 * sum(weights) / parameters) == 2


@pytest.mark.parametrize(("precision", "expected"), [("fp32", 6), ("bf16", 0)])
def test_where_the_config_asks_for_it(tiny_cfg, tiny_model, precision, expected):
    """The maps of a wide and shallow model are those of the plain one."""
    changes = {
        "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS": 3,
        "MODEL.QUERYPOSE.HIDDEN_DIM": 64,
        "MODEL.FPN.OUT_CHANNELS": 64,
        "MODEL.QUERYPOSE.NUM_STAGES": 2,
    }
    cfg = tiny_cfg(changes)
    cfg.MODEL.INFERENCE.PRECISION = precision
    cfg.MODEL.INFERENCE.WINOGRAD_MEMORY = 100.0
    model = tiny_model(changes)
    plain = copy.deepcopy(model).eval()
    prepare_for_inference(model, cfg)
    assert sum(isinstance(each, WinogradConv2d) for each in model.decoder.modules()) == expected
    image = {"image": 255 * torch.rand(3, 96, 128)}
    with torch.no_grad():
        found, people = (each([image])[0]["instances"] for each in (model, plain))
    torch.testing.assert_close(found.scores, people.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pred_keypoints, people.pred_keypoints, rtol=0, atol=1e-2)
