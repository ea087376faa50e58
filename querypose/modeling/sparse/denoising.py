"""Noised boxes of people as additional queries (denoising), which shorten the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_convert

from querypose.modeling.targets import PersonTargets

# At noise 1 a side is multiplied by 1/2 to 2.
_LARGEST_SCALE = 2.0


class NoisedPeople(NamedTuple):
    """D noised boxes for each of B images.

    Attributes:
        boxes: (B, D, 4) xyxy in pixels of the network's input.
        people: per image, the person of each box, (D,) int64; empty for an image without people,
            whose boxes have no meaning.
    """

    boxes: Tensor
    people: list[Tensor]

    @property
    def matches(self) -> list[tuple[Tensor, Tensor]]:
        """Per image, indices of boxes and of their people, as a matcher returns them."""
        return [(torch.arange(len(people), device=people.device), people) for people in self.people]


class BoxDenoiser:
    """Draws boxes near people, from which the decoder has to find the people (DN-DETR, section 3).

    In the first epochs the matched queries are far from their people, and keypoints that are
    decoded there teach little. Boxes near people train the box and keypoint stages from the first
    step. Inference does not use them.

    Args:
        num_queries: D, boxes per image, shared evenly among its people.
        noise: at 1 a center moves by up to half the box, and a side is halved to doubled.
    """

    def __init__(self, *, num_queries: int, noise: float = 1.0) -> None:
        self.num_queries = num_queries
        self.noise = noise

    def __call__(self, targets: Sequence[PersonTargets]) -> NoisedPeople:
        """Draws the boxes of every image from PyTorch's global generator."""
        people = [
            self._draw_people(len(target.boxes)).to(target.boxes.device) for target in targets
        ]
        boxes = [
            self._add_noise(target.boxes[drawn]) if len(drawn) else self._whole_image(target)
            for target, drawn in zip(targets, people, strict=True)
        ]
        return NoisedPeople(torch.stack(boxes), people)

    def _draw_people(self, num_people: int) -> Tensor:
        if num_people == 0:
            return torch.zeros(0, dtype=torch.int64)
        repeats = math.ceil(self.num_queries / num_people)
        return torch.randperm(num_people).repeat(repeats)[: self.num_queries]

    def _add_noise(self, boxes: Tensor) -> Tensor:
        center, size = box_convert(boxes, "xyxy", "cxcywh").split(2, dim=1)
        # Drawn on the CPU so that every device draws the same.
        shift, growth = (self.noise * (2 * torch.rand(2, *size.shape) - 1)).to(boxes.device)
        center = center + shift * size / 2
        size = size * (growth * math.log(_LARGEST_SCALE)).exp()
        return box_convert(torch.cat([center, size], dim=1), "cxcywh", "xyxy")

    def _whole_image(self, target: PersonTargets) -> Tensor:
        corners = torch.cat([torch.zeros_like(target.size_xyxy[:2]), target.size_xyxy[:2]])
        return corners.expand(self.num_queries, 4)
