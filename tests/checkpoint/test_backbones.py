from __future__ import annotations

import re

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer

BACKBONE = "backbone.bottom_up."
HRNET = {"MODEL.BACKBONE.NAME": "build_hrnet_hrfpn_backbone", "MODEL.HRNET.NAME": "hrnet_w18_small"}
# A smaller one than this has no third module in its last stage.
DEEP_HRNET = HRNET | {"MODEL.HRNET.NAME": "hrnet_w18"}
SWIN = {
    "MODEL.BACKBONE.NAME": "build_swin_fpn_backbone",
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.DEPTHS": [2, 2, 2, 2],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 4, 8],
}


def _bottom_up(model: nn.Module) -> dict[str, torch.Tensor]:
    """Random weights for the bottom-up network of a model, under its own names."""
    return {
        name.removeprefix(BACKBONE): torch.randn(value.shape)
        if value.is_floating_point()
        else value.clone()
        for name, value in model.state_dict().items()
        if name.startswith(BACKBONE)
    }


def _assert_backbone_alone(model, before, weights):
    for name, value in model.state_dict().items():
        short_name = name.removeprefix(BACKBONE)
        is_loaded = short_name != name and short_name in weights
        expected = weights[short_name] if is_loaded else before[name]
        assert torch.equal(value, expected), name


def test_heat_map_hrnet(small_model, save, copy_weights):
    """Published ones have a head, and may lack fusions of the last stage."""
    model = small_model(DEEP_HRNET)
    before = copy_weights(model)
    weights = {
        name: value
        for name, value in _bottom_up(model).items()
        if not re.match(r"stage4\.2\.fuse_layers\.[123]\.", name)
        if not name.endswith("num_batches_tracked")
    }
    assert len(weights) < len(_bottom_up(model))
    head = {
        "final_layer.weight": torch.zeros(17, 18, 1, 1),
        "final_layer.bias": torch.zeros(17),
    }
    QueryPoseCheckpointer(model).load(save(weights | head))
    _assert_backbone_alone(model, before, weights)


@pytest.mark.parametrize("changes", [HRNET, SWIN], ids=["hrnet", "swin"])
def test_detectron2s_own_checkpointer_reads_them(changes, small_model, caplog, save, copy_weights):
    """As its default trainer does with a config's MODEL.WEIGHTS."""
    model = small_model(changes)
    before = copy_weights(model)
    weights = _bottom_up(model)
    DetectionCheckpointer(model).load(save(weights))
    _assert_backbone_alone(model, before, weights)
    assert not any("not found in the model" in message for message in caplog.messages)


def test_a_hole_in_an_hrnet_is_named(small_model, save):
    model = small_model(HRNET)
    weights = _bottom_up(model)
    del weights["stage3.0.branches.1.1.conv1.weight"]
    with pytest.raises(ValueError, match=r"stage3\.0\.branches\.1\.1\.conv1\.weight is missing"):
        QueryPoseCheckpointer(model).load(save(weights))


def test_an_unknown_tensor_in_an_hrnet_is_named(small_model, save):
    model = small_model(HRNET)
    weights = _bottom_up(model) | {"stage5.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"stage5\.weight is not expected"):
        QueryPoseCheckpointer(model).load(save(weights))


def test_classification_swin(small_model, save, copy_weights):
    model = small_model(SWIN)
    before = copy_weights(model)
    weights = {
        name: value for name, value in _bottom_up(model).items() if not re.match(r"norm\d\.", name)
    }
    assert "patch_embed.norm.weight" in weights
    assert "layers.0.blocks.1.norm1.weight" in weights
    extra = {
        "head.weight": torch.zeros(1000, 128),
        "head.bias": torch.zeros(1000),
        "norm.weight": torch.zeros(128),
        "norm.bias": torch.zeros(128),
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
    }
    QueryPoseCheckpointer(model).load(save({"model": weights | extra}))
    _assert_backbone_alone(model, before, weights)


def test_converted_weights_without_the_index_are_complete(small_model):
    model = small_model(SWIN)
    weights = {
        name: value
        for name, value in small_model(SWIN, seed=1).state_dict().items()
        if not name.endswith("relative_position_index")
    }
    assert str(model.load_state_dict(weights)) == "<All keys matched successfully>"


def test_swin_computes_the_index_that_a_file_leaves_out(small_model, save, copy_weights):
    model = small_model(SWIN)
    before = copy_weights(model)
    weights = {
        name: value
        for name, value in _bottom_up(model).items()
        if not name.endswith("relative_position_index")
    }
    QueryPoseCheckpointer(model).load(save({"model": weights}))
    _assert_backbone_alone(model, before, weights)


def test_a_swin_of_another_width_is_refused(small_model, save):
    weights = _bottom_up(small_model(SWIN | {"MODEL.SWIN.EMBED_DIM": 32}))
    with pytest.raises(ValueError, match=r"is \([\d, ]+\) instead of \([\d, ]+\)"):
        QueryPoseCheckpointer(small_model(SWIN)).load(save({"model": weights}))


def test_zoo_file_of_a_resnet(small_model, save, copy_weights):
    """As Detectron2 publishes torchvision's ResNets: NumPy arrays under bare names."""
    model = small_model()
    before = copy_weights(model)
    weights = _bottom_up(model)
    arrays = {name: value.numpy() for name, value in weights.items()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    QueryPoseCheckpointer(model).load(save(content, "R-50.pkl"))
    _assert_backbone_alone(model, before, weights)


def test_classifier_in_a_zoo_file_is_left_aside(small_model, save, copy_weights):
    model = small_model()
    before = copy_weights(model)
    weights = _bottom_up(model)
    arrays = {name: value.numpy() for name, value in weights.items()}
    arrays |= {"stem.fc.weight": torch.zeros(1000, 512).numpy()}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    QueryPoseCheckpointer(model).load(save(content, "R-50.pkl"))
    _assert_backbone_alone(model, before, weights)


def test_caffe2_file_of_a_resnet(small_model, save, copy_weights):
    """Caffe2's names; its batch norms are folded into a scale and a bias."""
    model = small_model()
    before = copy_weights(model)
    weights = {
        name: value
        for name, value in _bottom_up(model).items()
        if not name.endswith(("running_mean", "running_var"))
    }
    blobs = {_caffe2_name(name): value.numpy() for name, value in weights.items()}
    assert {"conv1_w", "res_conv1_bn_s", "res3_0_branch1_w"} <= blobs.keys()
    blobs |= {"fc1000_w": torch.zeros(1000, 512).numpy(), "conv1_w_momentum": blobs["conv1_w"]}
    QueryPoseCheckpointer(model).load(save(blobs, "R-50.pkl"))
    statistics = {name: value for name, value in model.state_dict().items() if ".running_" in name}
    for name, value in statistics.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-4)
    _assert_backbone_alone(model, before | statistics, weights)


def _caffe2_name(name: str) -> str:
    name = name.replace("stem.conv1.norm.", "res.conv1.norm.").replace("stem.", "")
    name = name.replace("shortcut", "branch1")
    if name.startswith("res") and not name.startswith("res.conv1"):
        name = name.replace("conv1", "branch2a").replace("conv2", "branch2b")
        name = name.replace("conv3", "branch2c")
    for ours, theirs in (("norm.weight", "bn_s"), ("norm.bias", "bn_b"), ("weight", "w")):
        name = name.replace(ours, theirs)
    return name.replace(".", "_")


def test_a_zoo_file_of_another_network_is_refused(small_model, save):
    weights = _bottom_up(small_model())
    arrays = {name: value.numpy() for name, value in weights.items() if "res5" not in name}
    content = {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}
    with pytest.raises(ValueError, match=r"res5\.\S+ is missing"):
        QueryPoseCheckpointer(small_model()).load(save(content, "R-50.pkl"))
