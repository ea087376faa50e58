"""Automatic mixed precision, and whether a device supports it."""

from __future__ import annotations

import logging
import platform
from typing import Any

import torch
from torch import nn

PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context of automatic mixed precision; "fp32" has no effect.

    Args:
        device: of the model.
        precision: one of :data:`PRECISIONS`.
    """
    enabled = precision != "fp32"
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=enabled)


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scales losses of half precision, which underflows; passes others through.

    Args:
        device: of the model.
        precision: one of :data:`PRECISIONS`.
    """
    enabled = precision == "fp16"
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # PyTorch 2.2


class AutocastModel(nn.Module):
    """Runs a model in a precision; its boxes, keypoints and scores are float32.

    Args:
        model: a Detectron2 meta-architecture.
        precision: one of :data:`PRECISIONS`.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.device = next(model.parameters()).device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Calls the model."""
        with autocast(self.device, self.precision):
            return self.model(batched_inputs)


def check_precision(precision: str, device: torch.device) -> None:
    """Checks that a device can compute in a precision; warns if it only emulates it.

    Raises:
        ValueError: the device does not support the precision, or the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"The precision is one of {list(PRECISIONS)}, not {precision!r}.")
    supported = True
    if device.type == "cpu" and precision == "bf16":
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if supported and _emulates_bf16():
            logging.getLogger(__name__).warning(
                "This processor emulates bf16 arithmetic, which is slower than fp32."
            )
    elif device.type == "cpu" and precision == "fp16":
        supported = torch.ops.mkldnn._is_mkldnn_fp16_supported()
    elif device.type == "cuda" and precision == "bf16":
        is_amd = torch.version.hip is not None
        supported = is_amd or torch.cuda.get_device_capability(device) >= (8, 0)
    if not supported:
        raise ValueError(f"This machine's {device.type} has no {precision} arithmetic; use 'fp32'.")


def _emulates_bf16() -> bool:
    """Whether this is an x86 processor on which oneDNN converts bf16 to fp32 to compute."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    # PyTorch tells since version 2.6.
    checks = [
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return None not in checks and not any(check() for check in checks)
