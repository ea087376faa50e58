"""Fixtures for the tests of checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

_released_weights: dict[str, dict[str, torch.Tensor]] = {}


@pytest.fixture
def released(golden) -> Callable[[str], dict[str, torch.Tensor]]:
    """``released("mini_light")``: the tensors of a released file, computed once."""

    def load(name: str) -> dict[str, torch.Tensor]:
        if name not in _released_weights:
            _released_weights[name] = golden(name).state_dict
        return dict(_released_weights[name])

    return load


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """``save(content, "weights.pth")``: writes a file of that format; returns its path."""

    def write(content: object, name: str = "weights.pth") -> str:
        path = tmp_path / name
        if name.endswith(".pkl"):
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        return str(path)

    return write


@pytest.fixture
def copy_weights() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """``copy_weights(model)``: its state dict, which later changes of the model leave alone."""
    return lambda model: {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def assert_weights() -> Callable[[nn.Module, dict[str, torch.Tensor]], None]:
    """``assert_weights(model, expected)``: its whole state dict is the expected one."""

    def compare(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
        actual = model.state_dict()
        assert actual.keys() == expected.keys()
        different = [n for n, value in actual.items() if not torch.equal(value, expected[n])]
        assert different == []

    return compare
