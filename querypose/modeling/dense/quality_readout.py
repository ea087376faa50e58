"""From CIR-QEM's maps to poses: peaks, the mirrored view, several scales, suppression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from querypose.modeling.dense.cells import Cells
from querypose.modeling.dense.flip import mirror_poses
from querypose.modeling.dense.peaks import (
    MIN_PEAK_VALUE,
    find_peaks,
    fixed_peaks,
    spread_cells,
)
from querypose.modeling.pose_nms import best_of_alike
from querypose.skeleton import Skeleton

# Cells that a peak is the highest of, along each axis (AdaptivePose's published code).
_PEAK_KERNEL = 5
# Of poses of one image (PINet's published code, for its fusion).
_NMS_THRESHOLD = 0.7
# What the scores of another scale count (DEKR's published code).
_SCALE_DECREASE = 0.9


class ScoredPoses(NamedTuple):
    """n poses of one image.

    Attributes:
        places: (n, K, 2), x and y in cells.
        scores: (n,) in 0..1.
    """

    places: Tensor
    scores: Tensor


class QualityReadout:
    """Reads poses at the peaks of score maps.

    Args:
        skeleton: of the poses.
        max_peaks: of every image.
        nms: whether poses that resemble a better one are dropped.
    """

    def __init__(self, *, skeleton: Skeleton, max_peaks: int, nms: bool) -> None:
        self.flip_indices = skeleton.flip_indices
        self.sigmas = torch.tensor(skeleton.sigmas)
        self.max_peaks = max_peaks
        self.nms = nms
        self._fixed_count: int | None = None

    def fix_count(self, count: int) -> None:
        """Makes every image have ``count`` poses at cells that its maps do not choose."""
        self._fixed_count = count

    def peaks(self, scores: Tensor) -> Cells:
        """The peaks of every one of (B, 1, H, W) maps, best first."""
        if self._fixed_count is not None:
            return Cells(*spread_cells(scores[:, 0], self._fixed_count).unbind(dim=1))
        peaks = find_peaks(scores[:, 0], kernel=_PEAK_KERNEL, max_peaks=self.max_peaks)
        return Cells(*peaks.unbind(dim=1))

    def poses(
        self,
        scores: Tensor,
        poses_at: Callable[[Cells], Tensor],
        mirrored_poses_at: Callable[[Cells], Tensor] | None = None,
    ) -> list[ScoredPoses]:
        """Reads the poses at the peaks.

        Args:
            scores: (B, 1, H, W); with a mirrored view, means over both, in the image's frame.
            poses_at: poses of M cells, (M, K, 2) in cells.
            mirrored_poses_at: the same of the mirrored view, in its own frame; each pose becomes
                the mean of both views'.

        Returns:
            Per image, best first, before any suppression.
        """
        cells = self.peaks(scores)
        poses = self._averaged_poses(scores, cells, poses_at, mirrored_poses_at)
        values = cells.read(scores)[:, 0].clamp(0, 1)
        counts = torch.bincount(cells.images, minlength=len(scores)).tolist()
        split = zip(poses.split(counts), values.split(counts), strict=True)
        return [ScoredPoses(*image) for image in split]

    def best_at_most(
        self,
        scores: Tensor,
        poses_at: Callable[[Cells], Tensor],
        mirrored_poses_at: Callable[[Cells], Tensor] | None,
    ) -> ScoredPoses:
        """Reads and selects poses by operations that do not depend on how many there are.

        Args:
            scores: see :meth:`poses`; also the next two.
            poses_at: called once.
            mirrored_poses_at: called once.

        Returns:
            Places, (B, n, K, 2), n being the most peaks, and scores, (B, n), -inf for nobody.
        """
        highest = F.max_pool2d(scores, _PEAK_KERNEL, stride=1, padding=_PEAK_KERNEL // 2)
        peaks = fixed_peaks(scores[:, 0], highest[:, 0], self.max_peaks)
        cells = Cells(*peaks.indices())
        poses = self._averaged_poses(scores, cells, poses_at, mirrored_poses_at)
        poses = poses.unflatten(0, (-1, self.max_peaks))
        values = torch.where(peaks.values > 0, peaks.values.clamp(0, 1), -torch.inf)
        if self.nms:
            best = best_of_alike(poses, values, self.sigmas.to(values), _NMS_THRESHOLD)
            values = torch.where(best, values, -torch.inf)
        return ScoredPoses(poses, values)

    def _averaged_poses(
        self,
        scores: Tensor,
        cells: Cells,
        poses_at: Callable[[Cells], Tensor],
        mirrored_poses_at: Callable[[Cells], Tensor] | None,
    ) -> Tensor:
        """The poses of M cells in both views, (M, K, 2) in cells; see :meth:`poses`."""
        poses = poses_at(cells)
        if mirrored_poses_at is None:
            return poses
        width = scores.shape[-1]
        mirrored = mirrored_poses_at(cells._replace(columns=width - 1 - cells.columns))
        return (poses + mirror_poses(mirrored, self.flip_indices, width)) / 2

    def select(self, found: ScoredPoses) -> ScoredPoses:
        """Sorts the poses of one image, best first, and suppresses those that resemble others."""
        order = found.scores.argsort(descending=True, stable=True)
        if self.nms and self._fixed_count is None:
            best = best_of_alike(
                found.places, found.scores, self.sigmas.to(found.scores), _NMS_THRESHOLD
            )
            order = order[best[order]]
        return ScoredPoses(found.places[order], found.scores[order])


def merge_scales(scales: Sequence[float], found: Sequence[ScoredPoses]) -> ScoredPoses:
    """Puts the poses of one image at several scales together.

    Scores of the other scales are stretched to the range of scale 1 and lowered a little, as in
    DEKR's published code.

    Args:
        scales: one of them is 1.
        found: per scale, all in cells of scale 1.
    """
    best = [_best(poses.scores) for poses in found]
    reference = best[list(scales).index(1)]
    scores = [
        poses.scores * (1 if scale == 1 else _SCALE_DECREASE * reference / highest)
        for scale, poses, highest in zip(scales, found, best, strict=True)
    ]
    return ScoredPoses(torch.cat([poses.places for poses in found]), torch.cat(scores))


def _best(scores: Tensor) -> Tensor:
    # Only poses whose number is fixed may score lower.
    return scores.amax().clamp(min=MIN_PEAK_VALUE) if len(scores) else scores.new_tensor(1.0)
