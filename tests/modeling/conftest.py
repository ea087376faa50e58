"""Fixtures for the models' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.structures import Boxes, Instances, Keypoints
from torch import nn

from querypose.modeling.targets import PersonTargets


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Draws every parameter anew, biases and normalisations included, so that each one counts."""

    def fill(module: nn.Module, std: float = 0.3, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(std * torch.randn(parameter.shape))
        return module

    return fill


@pytest.fixture
def fill_batch_norms() -> Callable[[nn.Module], nn.Module]:
    """Gives batch norms numbers that do something, as after training."""

    def fill(model: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for module in model.modules():
            if hasattr(module, "running_mean"):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                if module.weight is not None:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
        return model

    return fill


@pytest.fixture
def random_people() -> Callable[..., PersonTargets]:
    """``random_people(3, (height, width))``: people inside a picture, all keypoints labelled."""

    def draw(
        count: int, image_size: tuple[int, int], num_keypoints: int = 17, seed: int = 0
    ) -> PersonTargets:
        generator = torch.Generator().manual_seed(seed)
        height, width = image_size
        size = torch.tensor([width, height, width, height], dtype=torch.float32)
        top_left = torch.rand(count, 2, generator=generator) * 0.5
        sides = 0.2 + torch.rand(count, 2, generator=generator) * 0.3
        boxes = torch.cat([top_left, top_left + sides], dim=1) * size
        inside = torch.rand(count, num_keypoints, 2, generator=generator)
        points = boxes[:, None, :2] + inside * (boxes[:, None, 2:] - boxes[:, None, :2])
        keypoints = torch.cat([points, torch.full((count, num_keypoints, 1), 2.0)], dim=-1)
        return PersonTargets(boxes, torch.zeros(count, dtype=torch.int64), keypoints, size)

    return draw


@pytest.fixture
def training_input(
    random_people: Callable[..., PersonTargets],
) -> Callable[..., dict[str, object]]:
    """``training_input(3, (height, width))``: one picture with so many people, for a model."""

    def draw(
        count: int, image_size: tuple[int, int], num_keypoints: int = 17, seed: int = 0
    ) -> dict[str, object]:
        people = random_people(count, image_size, num_keypoints, seed)
        instances = Instances(image_size, gt_boxes=Boxes(people.boxes), gt_classes=people.classes)
        # Detectron2 sets no keypoints where nobody is in the picture.
        if count:
            instances.gt_keypoints = Keypoints(people.keypoints)
        generator = torch.Generator().manual_seed(seed)
        image = 255 * torch.rand(3, *image_size, generator=generator)
        return {"image": image, "instances": instances}

    return draw
