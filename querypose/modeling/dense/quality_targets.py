"""Training targets of CIR-QEM: which person owns which cells, and Gaussians for the score map."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from querypose.modeling.dense.cells import STRIDE, Cells, cell_positions, pad_map
from querypose.modeling.dense.gaussians import draw_gaussians
from querypose.modeling.dense.ownership import owner_map
from querypose.modeling.dense.persons import LabeledPersons

OWNED_RADIUS = 4.0
"""A person owns the cells that are closer to its center, gamma in the paper."""

_GAUSSIAN_SIGMA = 4.0


class QualityTargets(NamedTuple):
    """Targets of a batch. M cells are owned by a person.

    Attributes:
        owners: (B, H, W) int64, the person who owns a cell, by its index in its image; else -1.
        cells: the owned cells.
        keypoints: (M, K, 2), of the owner, in cells of the map.
        in_map: (M, K) bool, whether a keypoint is labeled and within the image.
        areas: of the owner, (M,), in square cells.
        extents: ``max(w^2 + h^2, 1)`` of the owner's labeled keypoints, (M,), in square cells.
        gaussians: (B, H, W), Gaussians around the centers of persons.
    """

    owners: Tensor
    cells: Cells
    keypoints: Tensor
    in_map: Tensor
    areas: Tensor
    extents: Tensor
    gaussians: Tensor

    @classmethod
    def from_persons(
        cls, persons: Sequence[LabeledPersons], size: tuple[int, int], min_area: float
    ) -> QualityTargets:
        """Assigns cells to the persons of B images.

        Args:
            persons: per image.
            size: height and width of the padded maps.
            min_area: persons of a smaller area, in square pixels, own no cell.
        """
        owners, gaussians, person_of_cell, counts = [], [], [], [0]
        for image_persons in persons:
            centers, present = person_centers(image_persons, min_area)
            owner = _owners(image_persons, centers, present)
            gaussian, _ = draw_gaussians(
                centers[:, None], present[:, None], image_persons.size, _GAUSSIAN_SIGMA
            )
            owners.append(pad_map(owner, size, -1))
            gaussians.append(pad_map(gaussian[0], size, 0))
            person_of_cell.append(owner[owner >= 0] + counts[-1])
            counts.append(counts[-1] + len(image_persons.areas))
        owners, person_of_cell = torch.stack(owners), torch.cat(person_of_cell)
        keypoints = torch.cat([image.keypoints for image in persons])
        labeled = torch.cat([image.labeled for image in persons])
        in_map = torch.cat([image.in_map for image in persons])
        areas = torch.cat([image.areas for image in persons])
        return cls(
            owners=owners,
            cells=Cells.where(owners >= 0),
            keypoints=keypoints[person_of_cell],
            in_map=in_map[person_of_cell],
            areas=areas[person_of_cell] / STRIDE**2,
            extents=_squared_extents(keypoints, labeled)[person_of_cell],
            gaussians=torch.stack(gaussians),
        )


class QualityTargetBuilder(nn.Module):
    """Makes targets of labeled persons.

    Args:
        min_area: persons of a smaller area, in square pixels, own no cell.
    """

    def __init__(self, *, min_area: float) -> None:
        super().__init__()
        self.min_area = min_area

    def forward(self, persons: Sequence[LabeledPersons], size: tuple[int, int]) -> QualityTargets:
        """Assigns cells to the persons of B images; see :meth:`QualityTargets.from_persons`."""
        return QualityTargets.from_persons(persons, size, self.min_area)


def person_centers(persons: LabeledPersons, min_area: float) -> tuple[Tensor, Tensor]:
    """Means of the labeled keypoints.

    Small persons and those without a keypoint in the image have no center.

    Returns:
        (N, 2) in cells, and which of the N persons have one, (N,) bool.
    """
    every = torch.ones(persons.labeled.shape[1], dtype=torch.bool, device=persons.labeled.device)
    centers, _ = persons.centers(every)
    return centers, persons.in_map.any(dim=1) & (persons.areas >= min_area)


def cells_per_person() -> int:
    """How many cells a person owns whose center lies on a cell."""
    reach = range(-int(OWNED_RADIUS), int(OWNED_RADIUS) + 1)
    return sum(x**2 + y**2 < OWNED_RADIUS**2 for x, y in itertools.product(reach, reach))


def _owners(persons: LabeledPersons, centers: Tensor, present: Tensor) -> Tensor:
    places = cell_positions(persons.size, centers.device)
    squared_distances = (places - centers[:, None, None]).square().sum(dim=-1)
    claims = (squared_distances < OWNED_RADIUS**2) & present[:, None, None]
    return owner_map(claims, persons.areas)


def _squared_extents(keypoints: Tensor, labeled: Tensor) -> Tensor:
    """Squared diagonals of the boxes around (N, K, 2) labeled keypoints, at least 1, (N,)."""
    inf = float("inf")
    low = torch.where(labeled[..., None], keypoints, inf).amin(dim=1)
    high = torch.where(labeled[..., None], keypoints, -inf).amax(dim=1)
    return (high - low).square().sum(dim=-1).clamp(min=1)
