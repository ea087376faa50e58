from __future__ import annotations

import pytest
import torch

from querypose.modeling.sparse.proposals import initial_proposals


def test_the_method_starts_from_the_whole_image():
    assert (initial_proposals(7, "image") == torch.tensor([0.5, 0.5, 1.0, 1.0])).all()


def test_a_grid_covers_the_image_at_every_scale():
    boxes = initial_proposals(30, "grid")
    assert boxes.shape == (30, 4) and len(boxes.unique(dim=0)) == 30
    for width, count in ((1, 1), (1 / 2, 4), (1 / 3, 9), (1 / 4, 16)):
        level = boxes[torch.isclose(boxes[:, 2], torch.tensor(float(width)))]
        assert len(level) == count
        torch.testing.assert_close(level[:, :2].mean(dim=0), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("count", [1, 3, 10, 100])
def test_any_number_of_queries(count):
    boxes = initial_proposals(count, "grid")
    assert boxes.shape == (count, 4) and len(boxes.unique(dim=0)) == count
    assert (boxes > 0).all() and (boxes <= 1).all()


def test_config(tiny_cfg, tiny_model):
    model = tiny_model({"MODEL.QUERYPOSE.PROPOSALS": "grid"})
    assert torch.equal(model.decoder.proposal_boxes.weight, initial_proposals(12, "grid"))
    with pytest.raises(ValueError, match=r"MODEL\.QUERYPOSE\.PROPOSALS"):
        tiny_model({"MODEL.QUERYPOSE.PROPOSALS": "random"})
