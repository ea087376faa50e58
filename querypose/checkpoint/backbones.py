"""Checkpoints of backbones alone, from other projects."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from querypose.checkpoint.efficientnet import convert_efficientnet_state_dict, is_efficientnet

StateDict = dict[str, Tensor]

BACKBONE = "backbone.bottom_up."
"""What the names of a backbone's tensors begin with in a whole model."""


def foreign_backbone(state_dict: StateDict) -> StateDict | None:
    """Tensors of a heat-map HRNet, an ImageNet Swin or EfficientNet-Lite under our names.

    None for other files.
    """
    if is_efficientnet(state_dict):
        return {
            f"{BACKBONE}network.{name}": value
            for name, value in convert_efficientnet_state_dict(state_dict).items()
        }
    if any(name.startswith("stage4.") for name in state_dict):
        unused = ("final_layer.", "incre_modules.", "downsamp_modules.", "final_", "classifier.")
        return _prefixed(state_dict, lambda name: name.startswith(unused))
    if (
        "patch_embed.proj.weight" in state_dict
        and "layers.0.blocks.0.attn.qkv.weight" in state_dict
    ):
        return _prefixed(
            state_dict,
            lambda name: name.startswith(("head", "norm.")) or name.endswith("attn_mask"),
        )
    return None


def _prefixed(state_dict: StateDict, unused: Callable[[str], bool]) -> StateDict:
    return {BACKBONE + name: value for name, value in state_dict.items() if not unused(name)}


def may_be_missing(name: str) -> bool:
    """Tensors that any file may lack: Swin computes its index, heat maps are auxiliary."""
    return name.endswith("relative_position_index") or name.startswith("heatmap_head.")


def may_be_missing_in_backbone(name: str) -> bool:
    """Tensors that a backbone's file lacks: the rest of the model, norms added for detection."""
    if not name.startswith(BACKBONE) or may_be_missing(name):
        return True
    own = name[len(BACKBONE) :]
    # Swin's output norms are new; a pose HRNet of one output lacks the last fusions; Caffe2 folded
    # the statistics of its ResNets into scale and bias.
    return bool(re.match(r"norm\d\.|stage4\.2\.fuse_layers\.[123]\.", own)) or own.endswith(
        ("num_batches_tracked", ".norm.running_mean", ".norm.running_var")
    )
