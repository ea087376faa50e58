"""Files that hold a backbone alone: pose HRNets, ImageNet Swins, and networks of timm."""

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

# Beginnings of the tensor names in the head of a pose or classification network.
_HRNET_HEAD = ("final_layer.", "incre_modules.", "downsamp_modules.", "final_", "classifier.")
_SWIN_HEAD = ("head", "norm.")
_TIMM = f"{BACKBONE}network."


def may_be_missing_in_backbone(name: str) -> bool:
    """Whether a backbone file may lack a tensor: the rest of the model, norms for detection."""
    if not name.startswith(BACKBONE) or is_computed(name):
        return True
    short_name = name[len(BACKBONE) :]
    # Swin gets output norms for detection; a pose HRNet of one output lacks the last fusions;
    # Caffe2 folds the statistics of batch norms into their scale and bias.
    return bool(
        re.match(r"norm\d\.|stage4\.2\.fuse_layers\.[123]\.", short_name)
    ) or short_name.endswith(("num_batches_tracked", ".norm.running_mean", ".norm.running_var"))


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
    """The backbone weights in a file of a timm network.

    Each network of timm has its own tensor names. A file is recognized because it has every tensor
    of the timm backbone of the model.

    Returns:
        Tensors under our names, without the classifier; None if the file is not such a file.
    """
    timm_names = {name: name[len(_TIMM) :] for name in model.state_dict() if name.startswith(_TIMM)}
    needed = {name for name in timm_names.values() if not name.endswith("num_batches_tracked")}
    if not needed or not needed <= state_dict.keys():
        return None
    return {ours: state_dict[theirs] for ours, theirs in timm_names.items() if theirs in state_dict}


register_format(CheckpointFormat(_is_hrnet, _convert_hrnet, backbone_only=True))
register_format(CheckpointFormat(_is_swin, _convert_swin, backbone_only=True))
