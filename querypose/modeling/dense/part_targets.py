"""Training targets of PINet: Gaussians of keypoints and part centers, offsets near the latter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from querypose.modeling.dense.cells import is_in_map, pad_map
from querypose.modeling.dense.gaussians import draw_gaussians
from querypose.modeling.dense.ownership import owner_map
from querypose.modeling.dense.part_head import PartCells
from querypose.modeling.dense.persons import LabeledPersons

_KEYPOINT_SIGMA = 2.0
# Outside of all Gaussians' windows (DEKR's published code).
_BACKGROUND_WEIGHT = 0.1


class PartTargets(NamedTuple):
    """Targets of B images, or of one.

    Attributes:
        maps: (B, K + P, H, W) Gaussians, of keypoints and then of part centers.
        weights: (B, K + P, H, W), of the squared errors of the maps.
        cells: M, the cells of the parts that somebody owns.
        offsets: (M, K, 2), from a cell to its owner's keypoints, in cells.
        offset_weights: (M, K, 1); 0 where the keypoint is not in the map.
        center_values: (M,), the part centers' Gaussian at the cells.
    """

    maps: Tensor
    weights: Tensor
    cells: PartCells
    offsets: Tensor
    offset_weights: Tensor
    center_values: Tensor

    def best_of_parts(self, count: int) -> Tensor:
        """Indices of each image's and part's cells of the highest center values.

        Of equal values the first in row-major order.

        Args:
            count: of one image and part, at most.
        """
        by_value = self.center_values.argsort(descending=True, stable=True)
        groups = self.cells.images * self.maps.shape[1] + self.cells.parts
        ordered = by_value[groups[by_value].argsort(stable=True)]
        sizes = groups.bincount()
        first = sizes.cumsum(0) - sizes
        rank = torch.arange(len(ordered), device=ordered.device) - first[groups[ordered]]
        return ordered[rank < count]


class PartTargetBuilder(nn.Module):
    """Makes targets of labeled persons.

    Args:
        parts: keypoint indices of every part.
        center_only: whether the only part is the whole person: it has a wider Gaussian, and more
            cells propose its pose.
        nearest_cells: whether the 3 x 3 cells around the one nearest to a center propose a pose,
            instead of a square of even size.
        min_area: persons of a smaller box, in square pixels of the network's input, have no parts.
    """

    def __init__(
        self,
        *,
        parts: Sequence[Sequence[int]],
        center_only: bool,
        nearest_cells: bool,
        min_area: float,
    ) -> None:
        super().__init__()
        self.parts = parts
        self.center_sigma = 4.0 if center_only else 2.0
        # Along each axis, from the cell of the center, the first one and the last one.
        self.reach = (-4, 3) if center_only else (-2, 1)
        self.nearest_cells = nearest_cells
        if nearest_cells:
            self.reach = (-1, 1)
        self.min_area = min_area

    def forward(
        self, persons: Sequence[LabeledPersons], size: tuple[int, int], ignore_masks: Tensor
    ) -> PartTargets:
        """Makes the targets of a batch.

        Args:
            persons: per image; ``areas`` are those of the boxes.
            size: height and width of the padded map.
            ignore_masks: (B, H, W), 0 where the maps have no target.
        """
        images = [self._image_targets(found, size) for found in persons]
        weights = torch.stack([targets.weights for targets in images]) * ignore_masks[:, None]
        counts = [len(targets.offsets) for targets in images]
        index = torch.arange(len(images), device=weights.device)
        index = index.repeat_interleave(torch.tensor(counts, device=weights.device))
        _, parts, rows, columns = map(
            torch.cat, zip(*(targets.cells for targets in images), strict=True)
        )
        return PartTargets(
            maps=torch.stack([targets.maps for targets in images]),
            weights=weights,
            cells=PartCells(index, parts, rows, columns),
            offsets=torch.cat([targets.offsets for targets in images]),
            offset_weights=torch.cat([targets.offset_weights for targets in images]),
            center_values=torch.cat([targets.center_values for targets in images]),
        )

    def _image_targets(self, persons: LabeledPersons, size: tuple[int, int]) -> PartTargets:
        centers, present = self.part_centers(persons)
        heatmaps, windows = draw_gaussians(persons.keypoints, persons.in_map, size, _KEYPOINT_SIGMA)
        part_maps, part_windows = draw_gaussians(centers, present, size, self.center_sigma)
        inside = torch.cat([windows, part_windows])
        # Nobody owns cells of the padding, which depends on the other images.
        owners = pad_map(self.owners(persons, centers, present, persons.size), size, -1)
        parts, rows, columns = (owners >= 0).nonzero(as_tuple=True)
        cells = PartCells(torch.zeros_like(parts), parts, rows, columns)
        owner = owners[parts, rows, columns]
        scale = persons.areas[owner].clamp(min=1).rsqrt()
        return PartTargets(
            maps=torch.cat([heatmaps, part_maps]),
            weights=torch.where(inside, 1.0, _BACKGROUND_WEIGHT),
            cells=cells,
            offsets=persons.keypoints[owner] - cells.positions[:, None],
            offset_weights=(scale[:, None] * persons.in_map[owner])[..., None],
            center_values=part_maps[parts, rows, columns],
        )

    def part_centers(self, persons: LabeledPersons) -> tuple[Tensor, Tensor]:
        """Means of the parts' labeled keypoints.

        Returns:
            (N, P, 2) in cells, and which of them exist, (N, P) bool: a part needs a labeled
            keypoint, its center must be in the map, and the person not too small.
        """
        of_parts = [persons.centers(self._members(part, persons)) for part in self.parts]
        centers, present = (torch.stack(values, dim=1) for values in zip(*of_parts, strict=True))
        present &= is_in_map(centers, persons.size)
        return centers, present & (persons.areas >= self.min_area)[:, None]

    @staticmethod
    def _members(part: Sequence[int], persons: LabeledPersons) -> Tensor:
        members = persons.labeled.new_zeros(persons.labeled.shape[1])
        members[list(part)] = True
        return members

    def owners(
        self, persons: LabeledPersons, centers: Tensor, present: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Who owns the cells of each part, (P, H, W) int64; -1 for nobody.

        Args:
            persons: N; one without any keypoint in the map owns nothing.
            centers: (N, P, 2).
            present: (N, P) bool.
            size: height and width of the map.
        """
        middle = (centers + 0.5 if self.nearest_cells else centers).floor()
        first, last = self.reach
        claimed = []
        for axis, length in ((1, size[0]), (0, size[1])):
            distance = torch.arange(length, device=centers.device) - middle[..., axis, None]
            claimed.append((distance >= first) & (distance <= last))
        present = present & persons.in_map.any(dim=1, keepdim=True)
        claims = claimed[0][..., :, None] & claimed[1][..., None, :] & present[..., None, None]
        return owner_map(claims, persons.areas)
