"""People with noised boxes as additional queries, for a training that is short of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from querypose.modeling.targets import PersonTargets

# At noise 1 a box is at most so many times as large or as small as it should be.
_LARGEST_SCALE = 2.0


class NoisedPeople(NamedTuple):
    """D boxes for each of B images.

    Attributes:
        boxes: (B, D, 4) xyxy in pixels of the network's input.
        people: per image, whose box each one is, (D,) int64; empty for an image without people,
            whose boxes mean nothing.
    """

    boxes: Tensor
    people: list[Tensor]


class BoxDenoiser:
    """Draws boxes near people, for the decoder to find the way back (DN-DETR, section 3).

    Matched queries are far from their people for the first epochs, and keypoints decoded so far
    away teach little. Noised people give box and keypoint stages something to learn from the first
    step. They have no part in inference.

    Args:
        num_queries: D, boxes per image; each person has its share of them.
        noise: 1 moves a center by up to half the box and scales a side by up to 2 either way.
    """

    def __init__(self, *, num_queries: int, noise: float = 1.0) -> None:
        self.num_queries = num_queries
        self.noise = noise

    def __call__(self, targets: Sequence[PersonTargets]) -> NoisedPeople:
        """Draws every image's boxes from PyTorch's global generator."""
        people = [self._share(len(target.boxes)).to(target.boxes.device) for target in targets]
        boxes = [
            self._noised(target.boxes[chosen]) if len(chosen) else self._whole_image(target)
            for target, chosen in zip(targets, people, strict=True)
        ]
        return NoisedPeople(torch.stack(boxes), people)

    def _share(self, num_people: int) -> Tensor:
        if num_people == 0:
            return torch.zeros(0, dtype=torch.int64)
        return torch.randperm(num_people).repeat(-(-self.num_queries // num_people))[
            : self.num_queries
        ]

    def _noised(self, boxes: Tensor) -> Tensor:
        center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        # Drawn on the CPU: the same on every device.
        shift, growth = (self.noise * (2 * torch.rand(2, *size.shape) - 1)).to(boxes.device)
        center = center + shift * size / 2
        size = size * (growth * math.log(_LARGEST_SCALE)).exp()
        return torch.cat([center - size / 2, center + size / 2], dim=1)

    def _whole_image(self, target: PersonTargets) -> Tensor:
        corners = torch.cat([torch.zeros_like(target.size_xyxy[:2]), target.size_xyxy[:2]])
        return corners.expand(self.num_queries, 4)
