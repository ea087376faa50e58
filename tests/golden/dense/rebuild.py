"""Rebuilds the weights and inputs of the golden vectors in this folder; nothing here is a model.

Every tensor comes from ``../filler.py``: a pure function of its golden name, its shape and a seed.
A few are scaled afterwards (:data:`SCALES`), so that activations stay near 1 and displacements span
cells.
"""

from __future__ import annotations

import os
import re
import sys

import torch
from torch import Tensor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import filler

# Applied to every golden name that matches; the first match wins.
SCALES = (
    (r"backbone\.(layer1|stage\d)\..*\.bn[23]\.weight$", 0.3),  # last norm of a residual block
    (r"backbone\.stage\d\..*fuse_layers\.\d\.\d\.(\d\.)?1\.weight$", 0.3),  # norms of the fusions
    (r"ppg\.offset_head\.weight$", 4.0),
    (r"head\.(query|auto)\.weight$", 4.0),
    (r"head\.semantic\.weight$", 3.0),
    (r"head\.keypoint\.weight$", 0.5),
    (r"head\.(score|quality)_out\.weight$", 3.0),
)

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


def state_dict(shapes: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """``{golden name: tensor}`` of ``{golden name: shape}``."""
    weights = filler.state_dict(shapes, seed)
    for name in weights:
        for pattern, factor in SCALES:
            if re.match(pattern, name):
                weights[name] = weights[name] * factor
                break
    return weights


def images(sizes: list[tuple[int, int]], seed: int) -> list[Tensor]:
    """RGB images, float in 0..255, (3, h, w) each; image i has seed ``seed + i``."""
    return [filler.image(height, width, seed + i) for i, (height, width) in enumerate(sizes)]


def features(batch_size: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    """Stand-ins for a backbone's: smooth, not negative, (batch_size, channels, height, width)."""
    key = f"features-{batch_size}x{channels}x{height}x{width}"
    coarse_shape = (batch_size, channels, height // 4 + 1, width // 4 + 1)
    coarse = torch.from_numpy(filler.normal(key, coarse_shape, seed))
    shape = (batch_size, channels, height, width)
    fine = torch.from_numpy(filler.normal(key + "-fine", shape, seed))
    smooth = torch.nn.functional.interpolate(
        coarse, size=(height, width), mode="bilinear", align_corners=False
    )
    return (smooth + 0.25 * fine).clamp(min=0)
