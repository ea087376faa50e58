"""Deterministic weights and pictures behind the golden vectors.

A golden file stores outputs only: every input tensor is a pure function of its name, its shape and
a seed. NumPy's legacy ``RandomState`` serves because its stream never changes between releases.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
import torch.nn.functional as F


def normal(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Standard normal numbers, a pure function of (name, shape, seed)."""
    stream = np.random.RandomState((zlib.crc32(name.encode()) + 7919 * seed) % 2**32)
    return stream.standard_normal(shape).astype(np.float32)


def _proposal_boxes(shape: tuple[int, ...], seed: int) -> np.ndarray:
    uniform = np.random.RandomState(31 + seed).uniform(size=shape).astype(np.float32)
    return uniform * [0.6, 0.6, 0.4, 0.4] + [0.2, 0.2, 0.15, 0.15]


def _weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    values = normal(name, shape, seed)
    if name.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(values)
    if name.endswith("init_proposal_boxes.weight"):
        return _proposal_boxes(shape, seed)
    if name.endswith("relative_position_bias_table"):
        return 0.1 * values
    if len(shape) > 1:
        scale = 0.3 if "bboxes_delta" in name else 1.0
        return scale * (values / math.sqrt(int(np.prod(shape[1:]))))
    if name.endswith(("bias", "running_mean")):
        return 0.1 * values
    return 1.0 + 0.1 * values


def checkpoint_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """The value of the checkpoint entry ``name`` of ``shape``."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("flow.mask"):
        return torch.tensor([[0.0, 1.0], [1.0, 0.0]] * (shape[0] // 2))
    values = _weight(name, tuple(shape), seed)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def state_dict(shapes: dict[str, list[int]], seed: int = 0) -> dict[str, torch.Tensor]:
    """A released checkpoint's tensors; index buffers keep the values that their module computes."""
    return {
        name: checkpoint_tensor(name, tuple(shape), seed)
        for name, shape in shapes.items()
        if not name.endswith("relative_position_index")
    }


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth RGB picture, float32 in [0, 255], (3, height, width)."""
    coarse = torch.from_numpy(normal(f"image-{height}x{width}", (1, 3, 8, 8), seed))
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (128 + 60 * smooth[0]).clamp(0, 255)
