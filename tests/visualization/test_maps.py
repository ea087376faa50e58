from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from querypose.inference.prediction import PosePrediction
from querypose.skeleton import Skeleton
from querypose.visualization import draw_maps

LABEL, GAP = 24, 4
SKELETON = Skeleton(("head", "tail"), edges=(("head", "tail"),))


def prediction(num_persons: int = 0, **maps) -> PosePrediction:
    persons = Instances((80, 120), scores=torch.ones(num_persons))
    return PosePrediction(persons, SKELETON, maps=maps or None)


def test_the_highest_cell_is_the_hottest_place():
    image = np.full((80, 120, 3), 100, np.uint8)
    score = torch.zeros(10, 15)
    score[4, 9] = 0.5
    drawn = draw_maps(image, prediction(maps={"score": score}))
    assert drawn.shape == (80 + LABEL + GAP, 120 + GAP, 3)
    tile = drawn[LABEL:-GAP, :120].astype(int)
    changed = abs(tile - 100).sum(axis=-1)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert abs(row - 4 * 8) <= 1 and abs(column - 9 * 8) <= 1
    assert not changed[:20].any() and not changed[:, :60].any()


def test_proposals_have_the_colors_of_their_persons():
    image = np.zeros((80, 120, 3), np.uint8)
    proposals = [
        *([[10.0, 10], [50, 10]], [[10.0, 40], [50, 40]]),
        *([[10.0, 70], [5000, 70]], [[10.0, 55], [50, 55]]),
    ]
    drawn = draw_maps(
        image,
        prediction(
            2,
            maps={"head": torch.zeros(10, 15), "feet": torch.zeros(10, 15)},
            proposals=torch.tensor(proposals),
            # The last one's person was left out.
            proposal_persons=torch.tensor([0, 1, 0, 2]),
        ),
    )
    assert drawn.shape == (80 + LABEL + GAP, 3 * (120 + GAP), 3)
    tile = drawn[LABEL:-GAP, -(120 + GAP) : -GAP]
    first, second, third = (tile[row - 2 : row + 2, 30].max(axis=0) for row in (10, 40, 70))
    assert not tile[50:60].any()
    assert (first == third).all() and (first != second).any() and second.any()


def test_no_proposals():
    nobody = prediction(
        maps={"body": torch.zeros(10, 15)},
        proposals=torch.zeros(0, 2, 2),
        proposal_persons=torch.zeros(0, dtype=torch.int64),
    )
    assert draw_maps(np.zeros((80, 120, 3), np.uint8), nobody).shape[1] == 2 * (120 + GAP)


def test_a_prediction_without_maps():
    with pytest.raises(ValueError, match="return_maps=True"):
        draw_maps(np.zeros((80, 120, 3), np.uint8), prediction())
