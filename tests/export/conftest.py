"""Exported models, and images to compare them on."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from querypose.modeling.pose_model import PeopleBatch, PoseModel

if any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript", "cv2")):
    collect_ignore = ["test_packaged_model.py", "test_methods.py", "test_onnx_demo.py"]


def _draw(size: tuple[int, int], seed: int = 0) -> Tensor:
    """Generated people, (3, height, width) uint8."""
    from querypose.synthetic import SyntheticPeople, render

    height, width = size
    people = SyntheticPeople(1, seed=seed, image_size=(max(width, 128), max(height, 128)))
    return torch.from_numpy(render(people.scene(0))[:height, :width].copy()).permute(2, 0, 1)


@torch.no_grad()
def _assert_equal(
    detector: Any,
    model: PoseModel,
    size: tuple[int, int],
    batch_size: int,
    score_threshold: float,
) -> int:
    """Compares a file with its model's own ``forward``; tells how many people there were."""
    from querypose.export.verification import batch_of, compare

    images = torch.stack([_draw(size, seed) for seed in range(batch_size)])
    found = detector.people(images.numpy())
    inputs = [{"image": image, "score_threshold": score_threshold} for image in images]
    count = 0
    for index, output in enumerate(model(inputs)):
        people = output["instances"]
        expected = batch_of(people)
        valid = found.valid[index] & (found.scores[index] >= score_threshold)
        mine = PeopleBatch(*(field[None, index, valid] for field in found))
        difference = compare(mine, expected)
        assert difference.pixels < 0.1
        assert difference.scores < 1e-3
        assert difference.people == len(people)
        for boxes in zip(mine.boxes[0].T, expected.boxes[0].T, strict=True):
            torch.testing.assert_close(*(side.sort().values for side in boxes), atol=0.1, rtol=0)
        count += len(people)
    return count


@pytest.fixture(scope="session")
def exports() -> SimpleNamespace:
    """``draw``, ``assert_equal`` and three ``sizes``, of which 32 divides some."""
    sizes = [(220, 300), (384, 320), (161, 97)]
    return SimpleNamespace(draw=_draw, assert_equal=_assert_equal, sizes=sizes)


@pytest.fixture(scope="session")
def has_no_people() -> Callable[[Any, float], bool]:
    """Whether a file finds nobody in a gray image."""

    def check(detector: Any, score_threshold: float) -> bool:
        gray = torch.full((1, 3, 200, 180), 127, dtype=torch.uint8)
        found = detector.people(gray.numpy())
        return not bool((found.valid & (found.scores >= score_threshold)).any())

    return check
