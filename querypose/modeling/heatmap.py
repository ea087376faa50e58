"""Auxiliary heat maps of the keypoints, in training only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from querypose.modeling.loss_normalizer import mean_over_processes
from querypose.modeling.targets import PersonTargets

# IoU that a box keeps with its copy shifted by the radius of a Gaussian (CenterNet).
_MIN_OVERLAP = 0.7
_FOCAL_ALPHA, _FOCAL_BETA = 2, 4


class HeatmapHead(nn.Module):
    """Predicts K keypoint heat maps and compares them with Gaussian targets (CenterNet, section 3).

    Args:
        in_channels: width of the feature map.
        num_keypoints: K.
        stride: pixels of the network's input per cell.
        weight: weight of the loss.
        prior_prob: probability that an untrained map predicts.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_keypoints: int,
        stride: int,
        weight: float = 0.5,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = weight
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, num_keypoints, 1),
        )
        nn.init.constant_(self.layers[-1].bias, -math.log((1 - prior_prob) / prior_prob))

    def forward(self, features: Tensor, targets: Sequence[PersonTargets]) -> dict[str, Tensor]:
        """Returns ``loss_heatmap``; collective: every rank must call it.

        Args:
            features: (B, in_channels, H, W).
            targets: per image.
        """
        logits = self.layers(features).float()
        heatmaps = torch.stack(
            [draw_heatmaps(target, logits.shape[-2:], self.stride) for target in targets]
        )
        return {"loss_heatmap": self.weight * heatmap_focal_loss(logits, heatmaps)}

    def num_positive(self, targets: Sequence[PersonTargets]) -> Tensor:
        """Normalizer of the loss of these targets; collective: every rank must call it."""
        counts = []
        for target in targets:
            width, height, *_ = (target.size_xyxy / self.stride).ceil().int().tolist()
            counts.append(draw_heatmaps(target, (height, width), self.stride).eq(1).sum())
        return mean_over_processes(torch.stack(counts).sum())


def draw_heatmaps(target: PersonTargets, size: tuple[int, int], stride: int) -> Tensor:
    """Gaussians at the labeled keypoints of an image, (K, H, W) in [0, 1].

    A Gaussian is exactly 1 in the cell of its keypoint. Where two overlap, the larger value counts.
    """
    height, width = size
    cells = (target.keypoints[..., :2] / stride).floor()
    labeled = (target.keypoints[..., 2] > 0) & (cells >= 0).all(dim=-1)
    radius = _gaussian_radius((target.boxes[:, 2:] - target.boxes[:, :2]) / stride)[:, None, None]
    deviation = (2 * radius + 1) / 6

    def gaussian(center: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, device=cells.device) - center[..., None]
        values = torch.exp(-distance.square() / (2 * deviation.square()))
        return torch.where(distance.abs() <= radius, values, 0)

    rows = gaussian(cells[..., 1], height) * labeled[..., None]
    columns = gaussian(cells[..., 0], width)
    heatmaps = target.keypoints.new_zeros(target.keypoints.shape[1], height, width)
    for person_rows, person_columns in zip(rows, columns, strict=True):
        heatmaps = heatmaps.maximum(person_rows[:, :, None] * person_columns[:, None, :])
    return heatmaps


def _gaussian_radius(sizes: Tensor) -> Tensor:
    """Radii for boxes of (M, 2) cells, (M,) in whole cells.

    The smallest of three shifts after which a box and its shifted copy have IoU ``_MIN_OVERLAP``:
    both corners move in one direction, both inwards, or both outwards.
    """
    width, height = sizes.unbind(dim=-1)
    perimeter, area, overlap = width + height, width * height, _MIN_OVERLAP
    shifted = perimeter - (perimeter**2 - 4 * area * (1 - overlap) / (1 + overlap)).sqrt()
    inwards = (perimeter - (perimeter**2 - 4 * area * (1 - overlap)).sqrt()) / 2
    outwards = ((perimeter**2 + 4 * area * (1 / overlap - 1)).sqrt() - perimeter) / 2
    radius = torch.stack([shifted, inwards, outwards]).amin(dim=0) / 2
    return radius.floor().clamp(min=0)


def heatmap_focal_loss(logits: Tensor, heatmaps: Tensor) -> Tensor:
    """Penalty-reduced focal loss (CenterNet, equation 1); collective: every rank must call it.

    Args:
        logits: (B, K, H, W).
        heatmaps: targets in [0, 1], (B, K, H, W); cells of value 1 are positive.

    Returns:
        The sum over all cells, divided by the mean number of positive cells per process.
    """
    positive = heatmaps.eq(1)
    log_probability = nn.functional.logsigmoid(logits)
    log_complement = nn.functional.logsigmoid(-logits)
    probability = logits.sigmoid()
    hits = (1 - probability) ** _FOCAL_ALPHA * log_probability
    misses = (1 - heatmaps) ** _FOCAL_BETA * probability**_FOCAL_ALPHA * log_complement
    return -torch.where(positive, hits, misses).sum() / mean_over_processes(positive.sum())
