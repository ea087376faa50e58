"""Fixtures for the backbones' tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from torch import Tensor

PIXEL_MEAN = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1)
PIXEL_STD = torch.tensor([58.395, 57.120, 57.375]).view(3, 1, 1)


@pytest.fixture
def load_released() -> Callable[[Backbone, Any], tuple[list[str], list[str]]]:
    """Loads a golden checkpoint's backbone; gives the missing and the unexpected names."""

    def load(backbone: Backbone, reference: Any) -> tuple[list[str], list[str]]:
        prefix = "backbone."
        entries = reference.state_dict.items()
        weights = {key.removeprefix(prefix): v for key, v in entries if key.startswith(prefix)}
        difference = backbone.load_state_dict(weights, strict=False)
        return difference.missing_keys, difference.unexpected_keys

    return load


@pytest.fixture
def assert_reference_features() -> Callable[[Backbone, Any], None]:
    """Compares a backbone's p2..p5 with a golden model's, on its images."""

    def compare(backbone: Backbone, reference: Any) -> None:
        pixels = [(image - PIXEL_MEAN) / PIXEL_STD for image in reference.images]
        batch = ImageList.from_tensors(pixels, backbone.size_divisibility).tensor
        with torch.no_grad():
            features = backbone.eval()(batch)
        for level in ("p2", "p3", "p4", "p5"):
            mean, std = reference.arrays[f"feat_{level}_mean_std"]
            first = reference.arrays[f"feat_{level}_first64"]
            feature = features[level]
            tolerance = 1e-4 * std
            np.testing.assert_allclose(feature.flatten()[:64], first, rtol=1e-4, atol=tolerance)
            np.testing.assert_allclose(feature.mean(), mean, atol=tolerance)
            np.testing.assert_allclose(feature.std(), std, rtol=1e-4)

    return compare


@pytest.fixture
def parameters_without_gradient() -> Callable[[Backbone, Tensor], list[str]]:
    """Names of the parameters that a loss on all of a backbone's outputs does not reach."""

    def find(backbone: Backbone, images: Tensor) -> list[str]:
        features = backbone.train()(images)
        sum(feature.square().mean() for feature in features.values()).backward()
        return [name for name, p in backbone.named_parameters() if p.grad is None]

    return find
