"""Devices that a training asks for and a machine does not have."""

from __future__ import annotations

import argparse

import pytest

from querypose.engine import launch


def never(_: argparse.Namespace) -> None:
    pytest.fail("it started")


@pytest.mark.parametrize(
    ("device", "num_gpus", "present", "reason"),
    [
        ("cuda", 1, 0, r"MODEL.DEVICE is cuda, but .* wanted here \(1\) PyTorch sees 0: start"),
        ("cuda", 8, 2, r"wanted here \(8\) PyTorch sees 2: .* or set MODEL.DEVICE cpu"),
        ("gpu", 1, 1, r"MODEL.DEVICE is cuda, cpu or another of PyTorch's devices, not 'gpu'"),
    ],
)
def test_missing_devices_are_told_before_anything_starts(
    monkeypatch, device, num_gpus, present, reason
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: present)
    with pytest.raises(ValueError, match=reason):
        launch(never, argparse.Namespace(num_gpus=num_gpus), device=device)


def test_under_torchrun_every_process_of_the_machine_counts(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=r"wanted here \(4\) PyTorch sees 2"):
        launch(never, argparse.Namespace(num_gpus=1), device="cuda")
