"""ImageNet weights of EfficientNet-Lite from its first PyTorch port."""

from __future__ import annotations

import pytest
import timm
import torch

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.efficientnet import convert_efficientnet_state_dict

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def port_names(num_blocks: int) -> list[str]:
    """The tensor names of such a file, in the same order as timm's."""

    def norm(name):
        return [f"{name}.{tensor}" for tensor in NORM]

    names = ["_conv_stem.weight", *norm("_bn0")]
    for index in range(num_blocks):
        block = f"_blocks.{index}"
        if index:
            names += [f"{block}._expand_conv.weight", *norm(f"{block}._bn0")]
        names += [f"{block}._depthwise_conv.weight", *norm(f"{block}._bn1")]
        names += [f"{block}._project_conv.weight", *norm(f"{block}._bn2")]
    return [*names, "_conv_head.weight", *norm("_bn1"), "_fc.weight", "_fc.bias"]


def port_file(name: str) -> tuple[dict, dict]:
    """Tensors under the names of the port, and the same ones under timm's names."""
    network = timm.create_model(name)
    wanted = {key: torch.randn(value.shape) for key, value in network.state_dict().items()}
    names = port_names(sum(len(stage) for stage in network.blocks))
    return dict(zip(names, wanted.values(), strict=True)), wanted


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite3"])
def test_every_tensor_finds_its_place(name):
    port, wanted = port_file(name)
    unused = ("conv_head.", "bn2.", "classifier.")
    wanted = {
        key: value
        for key, value in wanted.items()
        if not key.startswith(unused) and not key.endswith("num_batches_tracked")
    }
    converted = convert_efficientnet_state_dict(port)
    assert converted.keys() == wanted.keys()
    assert all(torch.equal(converted[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("freeze_bn", [False, True])
def test_it_loads_as_a_backbone(tiny_model, tmp_path, freeze_bn):
    port, wanted = port_file("tf_efficientnet_lite0")
    torch.save(port, tmp_path / "lite0.pth")
    model = tiny_model(
        {
            "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
            "MODEL.TIMM.NAME": "tf_efficientnet_lite0",
            "MODEL.TIMM.FREEZE_BN": freeze_bn,
        }
    )
    QueryPoseCheckpointer(model).load(str(tmp_path / "lite0.pth"))
    state = model.backbone.bottom_up.network.state_dict()
    for name in ("conv_stem.weight", "blocks.6.0.conv_pwl.weight", "blocks.3.1.bn2.running_var"):
        assert torch.equal(state[name], wanted[name])


def test_a_file_of_another_size_is_refused(tiny_model, tmp_path):
    port, _ = port_file("tf_efficientnet_lite2")
    torch.save(port, tmp_path / "lite2.pth")
    model = tiny_model(
        {
            "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
            "MODEL.TIMM.NAME": "tf_efficientnet_lite0",
        }
    )
    with pytest.raises(ValueError, match=r"lite2\.pth"):
        QueryPoseCheckpointer(model).load(str(tmp_path / "lite2.pth"))


def test_a_swin_of_timm_loads(tiny_model, tmp_path):
    """Some of its names are those of the files that Swin's authors published."""
    name = "swin_tiny_patch4_window7_224"
    weights = timm.create_model(name).state_dict()
    torch.save(weights, tmp_path / "swin.pth")
    model = tiny_model({"MODEL.BACKBONE.NAME": "build_timm_fpn_backbone", "MODEL.TIMM.NAME": name})
    QueryPoseCheckpointer(model).load(str(tmp_path / "swin.pth"))
    state = model.backbone.bottom_up.network.state_dict()
    for weight in ("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"):
        assert torch.equal(state[weight], weights[weight])
