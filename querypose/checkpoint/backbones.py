"""Files that hold a backbone alone: heat-map HRNets, ImageNet Swins, and timm's networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from querypose.checkpoint.formats import (
    BACKBONE,
    CheckpointFormat,
    StateDict,
    is_computed,
    register_format,
)

# The head of a pose or a classification network.
_HRNET_HEAD = ("final_layer.", "incre_modules.", "downsamp_modules.", "final_", "classifier.")
_SWIN_HEAD = ("head", "norm.")
_TIMM = f"{BACKBONE}network."


def may_be_missing_in_backbone(name: str) -> bool:
    """Tensors that a backbone's file lacks: the rest of the model, norms added for detection."""
    if not name.startswith(BACKBONE) or is_computed(name):
        return True
    own = name[len(BACKBONE) :]
    # Swin's output norms are new; a pose HRNet of one output lacks the last fusions; Caffe2 folded
    # the statistics of its ResNets into scale and bias.
    return bool(re.match(r"norm\d\.|stage4\.2\.fuse_layers\.[123]\.", own)) or own.endswith(
        ("num_batches_tracked", ".norm.running_mean", ".norm.running_var")
    )


def _is_hrnet(state_dict: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("stage4.") for name in state_dict)


def _is_swin(state_dict: Mapping[str, Tensor]) -> bool:
    return {"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"} <= state_dict.keys()


def _convert_hrnet(state_dict: Mapping[str, Tensor], _: nn.Module) -> StateDict:
    return {
        BACKBONE + name: value
        for name, value in state_dict.items()
        if not name.startswith(_HRNET_HEAD)
    }


def _convert_swin(state_dict: Mapping[str, Tensor], _: nn.Module) -> StateDict:
    return {
        BACKBONE + name: value
        for name, value in state_dict.items()
        if not name.startswith(_SWIN_HEAD) and not name.endswith("attn_mask")
    }


def timm_weights(state_dict: Mapping[str, Tensor], model: nn.Module) -> StateDict | None:
    """The tensors of a file in timm's layout that a model's backbone has.

    timm names its networks' tensors in as many ways as there are networks, so the model tells: the
    file has every tensor of its network.

    Returns:
        Tensors under our names, without the classifier; None where the file is another's.
    """
    wanted = [name for name in model.state_dict() if name.startswith(_TIMM)]
    names = {name: name[len(_TIMM) :] for name in wanted}
    needed = {own for own in names.values() if not own.endswith("num_batches_tracked")}
    if not needed or not needed <= state_dict.keys():
        return None
    return {name: state_dict[own] for name, own in names.items() if own in state_dict}


register_format(CheckpointFormat(_is_hrnet, _convert_hrnet, backbone_only=True))
register_format(CheckpointFormat(_is_swin, _convert_swin, backbone_only=True))
