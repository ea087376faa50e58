"""Where the weight files come from that shipped configs name and users must fetch."""

from __future__ import annotations

from os import PathLike
from pathlib import PurePath

_HRNET = "the model zoo of github.com/leoxiaobin/deep-high-resolution-net.pytorch"
_SWIN = "the ImageNet-22k models of github.com/microsoft/Swin-Transformer"
_ORIGINS = {
    "pose_hrnet_w32_384x288.pth": _HRNET,
    "pose_hrnet_w48_384x288.pth": _HRNET,
    "hrnet_w32-36af842e.pth": _HRNET,
    "hrnet_w48-8ef0771d.pth": _HRNET,
    "swin_tiny_patch4_window7_224_22k.pth": _SWIN,
    "swin_base_patch4_window7_224_22k.pth": _SWIN,
    "swin_large_patch4_window7_224_22k.pth": _SWIN,
}
# COCO keypoint AP in the authors' table.
_TRAINED = {"pose_hrnet_w32_384x288.pth": 69.8, "pose_hrnet_w48_384x288.pth": 71.0}


def origin_hint(address: str | PathLike[str]) -> str:
    """A sentence for an error on a missing file; "" for files that no shipped config names."""
    name = PurePath(address).name
    if name not in _ORIGINS:
        return ""
    hint = (
        f" It holds a backbone, to start a training from: fetch it from {_ORIGINS[name]}, and "
        "give its path as MODEL.WEIGHTS."
    )
    if name in _TRAINED:
        hint += (
            f" To predict or evaluate, take the trained light QueryPose model (keypoint AP "
            f"{_TRAINED[name]:.1f}) from github.com/buptxyb666/QueryPose."
        )
    return hint
