"""One-to-one assignment of queries to ground-truth people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou

from querypose.modeling.targets import PersonTargets

_LOG_EPSILON = 1e-8


class HungarianMatcher(nn.Module):
    """Finds the cheapest assignment, image by image (DETR, section 3.1).

    Args:
        class_cost: weight of the focal class cost.
        l1_cost: weight of the L1 distance of boxes divided by the size of the image.
        giou_cost: weight of the negative generalized IoU.
        focal_alpha: weight of positives in the focal cost.
        focal_gamma: exponent of the focal cost.
    """

    def __init__(
        self,
        *,
        class_cost: float,
        l1_cost: float,
        giou_cost: float,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
    ) -> None:
        super().__init__()
        self.class_cost = class_cost
        self.l1_cost = l1_cost
        self.giou_cost = giou_cost
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma

    @torch.no_grad()
    def forward(
        self, logits: Sequence[Tensor], boxes: Sequence[Tensor], targets: Sequence[PersonTargets]
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Matches the queries of every stage.

        Args:
            logits: per stage, (B, N, classes).
            boxes: per stage, (B, N, 4) xyxy in pixels.
            targets: per image.

        Returns:
            ``matches[stage][image]``: indices of queries and of people, two int64 tensors of
            length min(N, people) on the device of the queries, ordered by query.

        Raises:
            FloatingPointError: a cost is NaN or infinite.
        """
        costs = [
            [
                self.cost(*prediction, target)
                for *prediction, target in zip(*stage, targets, strict=True)
            ]
            for stage in zip(logits, boxes, strict=True)
        ]
        # One copy to the host for all stages and images.
        flat = (
            torch.cat([cost.flatten() for stage in costs for cost in stage]).float().cpu().numpy()
        )
        if not np.isfinite(flat).all():
            raise FloatingPointError(
                "The matching cost is NaN or infinite: the model's boxes or logits have diverged; "
                "lower SOLVER.BASE_LR or check the batch."
            )
        return self._assign(flat, costs)

    @staticmethod
    def _assign(flat: np.ndarray, costs: list[list[Tensor]]) -> list[list[tuple[Tensor, Tensor]]]:
        matches, offset = [], 0
        for stage in costs:
            matches.append([])
            for cost in stage:
                rows = flat[offset : offset + cost.numel()].reshape(tuple(cost.shape))
                offset += cost.numel()
                pairs = linear_sum_assignment(rows)
                matches[-1].append(
                    tuple(torch.as_tensor(index, device=cost.device) for index in pairs)
                )
        return matches

    def cost(self, logits: Tensor, boxes: Tensor, target: PersonTargets) -> Tensor:
        """Cost of every pair of a query and a person of one image.

        Args:
            logits: (N, classes).
            boxes: (N, 4) xyxy in pixels.
            target: the image's M people.

        Returns:
            (N, M), float32.
        """
        size = target.size_xyxy
        distance = torch.cdist(boxes.float() / size, target.boxes / size, p=1)
        overlap = generalized_box_iou(boxes.float(), target.boxes)
        class_cost = self._class_cost(logits.float())[:, target.classes]
        return self.class_cost * class_cost + self.l1_cost * distance - self.giou_cost * overlap

    def _class_cost(self, logits: Tensor) -> Tensor:
        probability = logits.sigmoid()
        alpha, gamma = self.focal_alpha, self.focal_gamma
        positive = -alpha * (1 - probability) ** gamma * (probability + _LOG_EPSILON).log()
        negative = -(1 - alpha) * probability**gamma * (1 - probability + _LOG_EPSILON).log()
        return positive - negative
