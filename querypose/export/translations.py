"""PyTorch operators that its exporter does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op


def _stable_sort(
    values: Any, stable: bool = False, dim: int = -1, descending: bool = False
) -> tuple[Any, Any]:
    """``torch.sort``. Of equal values ONNX's TopK takes the earlier first, so it is stable."""
    length = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.sort.stable: _stable_sort}
"""ONNX's operators for them."""
