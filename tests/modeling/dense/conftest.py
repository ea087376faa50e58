"""What the dense methods' references compute, and for which weights and images."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

GOLDEN_DIR = Path(__file__).parents[2] / "golden" / "dense"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"dense_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rebuild() -> ModuleType:
    """The module that makes the golden files' weights and inputs from names and seeds."""
    return _load(GOLDEN_DIR / "rebuild.py")


@pytest.fixture(scope="session")
def quality() -> ModuleType:
    """The module that reads CIR-QEM's golden files in this package's terms."""
    return _load(Path(__file__).parent / "quality_golden.py")


@pytest.fixture(scope="session")
def dense_arrays() -> Callable[[str], dict[str, np.ndarray]]:
    """``dense_arrays("affine")``: the arrays of a golden file."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN_DIR / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def dense_weights(rebuild: ModuleType) -> Callable[..., dict[str, torch.Tensor]]:
    """``dense_weights("pinet_coco", 111)``: filled tensors by golden names.

    A ``variant`` chooses one of a file of several models.
    """

    def fill(name: str, seed: int, variant: str | None = None) -> dict[str, torch.Tensor]:
        shapes = json.loads((GOLDEN_DIR / f"{name}.shapes.json").read_text())
        return rebuild.state_dict(shapes if variant is None else shapes[variant], seed)

    return fill


@pytest.fixture(scope="session")
def assert_close_to() -> Callable[..., None]:
    """Compares within a fraction of the expected array's largest magnitude."""

    def check(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-4) -> None:
        expected = torch.as_tensor(expected)
        assert tuple(actual.shape) == tuple(expected.shape)
        if expected.numel():
            error = (actual.detach().cpu().double() - expected.double()).abs().max()
            assert error <= tolerance * expected.abs().max()

    return check
