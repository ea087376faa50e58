"""Exported models, and images to compare them on."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from querypose.modeling.pose_model import PeopleBatch, PoseModel

if any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript", "cv2")):
    collect_ignore = [
        "test_detector.py",
        "test_full_size.py",
        "test_methods.py",
        "test_onnx_demo.py",
        "test_packaged_model.py",
        "test_swin.py",
    ]


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


@torch.no_grad()
def _tame(model: PoseModel) -> None:
    """Makes residual branches and steps of boxes as small as those of trained models.

    The stages of an untrained model enlarge every rounding error to pixels, in PyTorch, too.
    """
    branches = [each.norm3.weight for each in _modules(model, "interaction")]
    branches += [each.linear2.weight for each in _modules(model, "feed_forward")]
    branches += [each.out_proj.weight for each in _modules(model, "self_attention")]
    branches += [each.norm.weight for each in _modules(model.backbone, "conv3") if _has_norm(each)]
    branches += [each.weight for each in _modules(model.backbone, "bn2")]
    for weight in branches:
        weight.mul_(0.3)
    for stage in model.decoder.box_stages:
        stage.box_deltas.weight.mul_(0.1)
        # Class scores that differ, as many below 0.01 as above.
        nn.init.normal_(stage.class_logits.weight, std=0.3)


def _modules(parent: nn.Module, name: str) -> list[nn.Module]:
    return [each for full, each in parent.named_modules() if full.rpartition(".")[2] == name]


def _has_norm(conv: nn.Module) -> bool:
    return getattr(conv, "norm", None) is not None


@torch.no_grad()
def _calibrate_norms(model: PoseModel, images: Tensor) -> None:
    """Gives batch norms the statistics of images, one after the other."""

    def calibrate(norm: Any, inputs: tuple[Tensor]) -> None:
        norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))

    norms = (nn.BatchNorm2d, FrozenBatchNorm2d)
    hooks = [
        module.register_forward_pre_hook(calibrate)
        for module in model.modules()
        if isinstance(module, norms)
    ]
    model([{"image": image} for image in images])
    for hook in hooks:
        hook.remove()


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


@pytest.fixture(scope="session")
def settle() -> Callable[[PoseModel, Tensor], None]:
    """Gives an untrained QueryPose, in place, the numerical behavior of a trained one."""

    def settle(model: PoseModel, images: Tensor) -> None:
        _tame(model)
        _calibrate_norms(model, images)

    return settle
