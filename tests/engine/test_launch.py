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
        ("cuda", 1, 0, r"1 processes want a GPU each \(MODEL.DEVICE cuda\), but PyTorch sees 0"),
        ("cuda", 8, 2, r"8 processes want a GPU each .* sees 2 here: start fewer, or set"),
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
    with pytest.raises(ValueError, match="4 processes want a GPU each"):
        launch(never, argparse.Namespace(num_gpus=1), device="cuda")
