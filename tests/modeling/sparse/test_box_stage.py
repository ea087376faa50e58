from __future__ import annotations

import math

import pytest
import torch

from querypose.modeling.sparse.box_stage import BoxDecoderStage

DIM, POOL = 16, 3


def _stage(**changes) -> BoxDecoderStage:
    settings = {
        "dim": DIM,
        "num_classes": 2,
        "num_heads": 4,
        "ffn_dim": 24,
        "dynamic_dim": 8,
        "pooler_resolution": POOL,
        "num_cls_layers": 1,
        "num_box_layers": 3,
        "prior_prob": 0.01,
    }
    return BoxDecoderStage(**(settings | changes))


def _inputs(images: int, queries: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    top_left = 50 * torch.rand(images, queries, 2)
    boxes = torch.cat([top_left, top_left + 5 + 40 * torch.rand(images, queries, 2)], dim=-1)
    rois = torch.randn(images * queries, DIM, POOL, POOL)
    return rois, boxes, torch.randn(images, queries, DIM)


def _constant_deltas(stage: BoxDecoderStage, deltas: list[float]) -> None:
    with torch.no_grad():
        stage.box_deltas.weight.zero_()
        stage.box_deltas.bias.copy_(torch.tensor(deltas))


def test_deltas_move_and_scale_the_incoming_boxes():
    torch.manual_seed(0)
    stage = _stage()
    _constant_deltas(stage, [0.5, -1.0, 0.25, -0.75])
    rois, boxes, queries = _inputs(2, 3)
    refined = stage(rois, boxes, queries).boxes
    for before, after in zip(
        boxes.flatten(0, 1).tolist(), refined.flatten(0, 1).tolist(), strict=True
    ):
        width, height = before[2] - before[0], before[3] - before[1]
        # Center deltas are divided by 2, size deltas by 1.
        x = (before[0] + before[2]) / 2 + 0.5 / 2 * width
        y = (before[1] + before[3]) / 2 - 1.0 / 2 * height
        new_width, new_height = width * math.exp(0.25), height * math.exp(-0.75)
        expected = [x - new_width / 2, y - new_height / 2, x + new_width / 2, y + new_height / 2]
        assert after == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_a_stage_scales_a_box_up_to_a_limit():
    torch.manual_seed(0)
    stage = _stage()
    _constant_deltas(stage, [0.0, 0.0, 50.0, 50.0])
    rois, _, queries = _inputs(1, 1)
    refined = stage(rois, torch.tensor([[[10.0, 20.0, 12.0, 23.0]]]), queries).boxes[0, 0]
    assert (refined[2] - refined[0]).item() == pytest.approx(2 * 100000 / 16, rel=1e-4)
    assert (refined[3] - refined[1]).item() == pytest.approx(3 * 100000 / 16, rel=1e-4)


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_an_untrained_class_branch_predicts_the_prior(prior):
    stage = _stage(prior_prob=prior)
    torch.nn.init.zeros_(stage.class_logits.weight)
    logits = stage(*_inputs(2, 3)).logits
    assert logits.shape == (2, 3, 2)
    torch.testing.assert_close(logits.sigmoid(), torch.full((2, 3, 2), prior))


def test_weights_start_xavier_uniform():
    torch.manual_seed(0)
    stage = _stage(dim=64)
    for name in ("interaction.dynamic_layer", "class_branch.0", "feed_forward.linear2"):
        weight = stage.get_submodule(name).weight
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.95 * bound < weight.abs().max() <= bound, name
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name


def test_queries_mix_within_an_image_and_not_across(randomize):
    stage = randomize(_stage())
    rois, boxes, queries = _inputs(2, 3)
    with torch.no_grad():
        together = stage(rois, boxes, queries)
        for image in range(2):
            rows = slice(3 * image, 3 * image + 3)
            alone = stage(rois[rows], boxes[image, None], queries[image, None])
            for one, both in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], both[image])
        changed = queries.clone()
        changed[0, 2] += 1
        after = stage(rois, boxes, changed).queries
    assert (after[0, 0] - together.queries[0, 0]).abs().max() > 1e-3
    torch.testing.assert_close(after[1], together.queries[1])


def test_each_query_reads_its_own_region(randomize):
    stage = randomize(_stage())
    rois, boxes, queries = _inputs(2, 3)
    with torch.no_grad():
        before = stage(rois, boxes, queries).queries
        rois[4] += 1
        moved = (stage(rois, boxes, queries).queries - before).abs().amax(dim=-1) > 1e-3
    assert moved.tolist() == [[False, False, False], [False, True, False]]


def test_boxes_stay_float32_under_autocast(randomize):
    stage = randomize(_stage())
    with torch.autocast("cpu", torch.bfloat16):
        output = stage(*_inputs(1, 3))
    assert output.logits.dtype == torch.bfloat16
    assert output.boxes.dtype == torch.float32
