"""PINet's losses: maps, the poses that parts propose, and the refined poses."""

from __future__ import annotations

import torch
from torch import Tensor

from querypose.modeling.dense.losses import smooth_l1_sum, squared_error_sum
from querypose.modeling.dense.part_head import PartMaps
from querypose.modeling.dense.part_targets import PartTargets
from querypose.modeling.dense.pose_refinement import PoseRefinement
from querypose.modeling.loss_normalizer import mean_over_processes

# Poses of one part of one image that the refinement learns from at most (supplement).
_MAX_REFINED_PER_PART = 40


class PartCriterion:
    """The weighted losses of one batch.

    Args:
        offset_weight: of the errors of poses; the squared errors of keypoint and part maps count 1.
        refinement_weight: of the errors of refined poses.
    """

    def __init__(self, *, offset_weight: float, refinement_weight: float) -> None:
        self.offset_weight = offset_weight
        self.refinement_weight = refinement_weight

    def __call__(
        self,
        features: Tensor,
        maps: PartMaps,
        refinement: PoseRefinement | None,
        targets: PartTargets,
    ) -> dict[str, Tensor]:
        """Computes the losses. Collective: every rank must call it.

        Args:
            features: (B, C, H, W), that the refinement reads.
            maps: of the head.
            refinement: corrects poses, or None.
            targets: of the batch.

        Returns:
            ``loss_heatmap``, ``loss_offset`` and, with a refinement, ``loss_refine``.
        """
        normalizers = self.normalizers(targets)
        predicted = torch.cat([maps.heatmaps, maps.parts], dim=1)
        squared_error = squared_error_sum(predicted, targets.maps, targets.weights)
        offsets = targets.cells.read_offsets(maps.offsets, targets.offsets.shape[1])
        error = smooth_l1_sum(offsets, targets.offsets, targets.offset_weights)
        losses = {
            "loss_heatmap": squared_error / predicted.numel(),
            "loss_offset": self.offset_weight * error / normalizers["loss_offset"],
        }
        if refinement is not None:
            error = _refinement_error(features, offsets.detach(), refinement, targets)
            losses["loss_refine"] = self.refinement_weight * error / normalizers["loss_refine"]
        return losses

    def normalizers(self, targets: PartTargets) -> dict[str, Tensor]:
        """Counts of coordinates that the losses of poses are means over.

        The loss of the maps is a mean over images. Collective: every rank must call it.
        """
        chosen = targets.best_of_parts(_MAX_REFINED_PER_PART)
        weights = {
            "loss_offset": targets.offset_weights,
            "loss_refine": targets.offset_weights[chosen],
        }
        return {name: mean_over_processes(2 * (w > 0).sum()) for name, w in weights.items()}


def _refinement_error(
    features: Tensor, offsets: Tensor, refinement: PoseRefinement, targets: PartTargets
) -> Tensor:
    """Summed errors of refined poses; zero of fewer than two, since batch norm needs two."""
    chosen = targets.best_of_parts(_MAX_REFINED_PER_PART)
    if len(chosen) < 2:
        # Processes exchange gradients: each must have some of the same parameters.
        return 0 * sum(parameter.sum() for parameter in refinement.parameters())
    cells, offsets = targets.cells.select(chosen), offsets[chosen]
    corrections = refinement(features, cells.positions[:, None] + offsets, cells)
    return smooth_l1_sum(
        offsets + corrections, targets.offsets[chosen], targets.offset_weights[chosen]
    )
