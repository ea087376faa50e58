"""Fixtures that every test may ask for."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN_DIR = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parent.parent


def _load_filler():
    spec = importlib.util.spec_from_file_location("golden_filler", GOLDEN_DIR / "filler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filler = _load_filler()


@dataclass(frozen=True)
class Golden:
    """What the method's reference computes for one model."""

    arrays: dict[str, np.ndarray]
    state_dict: dict[str, torch.Tensor]
    images: list[torch.Tensor]


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """``golden("mini_light")``: reference arrays, released-layout weights and input pictures."""

    def load(name: str) -> Golden:
        shapes = json.loads((GOLDEN_DIR / f"{name}.shapes.json").read_text())
        with np.load(GOLDEN_DIR / f"{name}.npz") as arrays:
            outputs = dict(arrays)
        sizes = [(96, 128), (112, 96)] if name.startswith("mini") else [(128, 160)]
        images = [filler.image(*size, seed=seed) for seed, size in enumerate(sizes)]
        return Golden(outputs, filler.state_dict(shapes), images)

    return load


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures, or a skip where this machine has none."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("QUERYPOSE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real pictures here (set QUERYPOSE_TEST_DATA to their folder)")
    return folder
