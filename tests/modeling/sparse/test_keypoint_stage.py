from __future__ import annotations

import pytest
import torch

from querypose.modeling.sparse.keypoint_stage import KeypointDecoderStage, KeypointStageOutput
from querypose.modeling.sparse.part_attention import attention_centers

DIM, PART_DIM, POOL = 8, 16, 3
# Neither the parts nor the keypoints inside them are in the dataset's order.
PARTS = ((4, 1), (5,), (0, 3, 2))


def _stage(**changes) -> KeypointDecoderStage:
    settings = {
        "dim": DIM,
        "part_dim": PART_DIM,
        "part_indices": PARTS,
        "num_heads": 4,
        "ffn_dim": 20,
        "num_convs": 2,
        "pooler_resolution": POOL,
        "dynamic_dim": 4,
        "feedback": False,
    }
    return KeypointDecoderStage(**(settings | changes))


def test_keypoint_score_is_one_minus_the_mean_sigma():
    sigmas = torch.tensor([[[0.1, 0.3], [0.0, 1.0]]])
    output = KeypointStageOutput(torch.zeros(1, 2, 2), sigmas, torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(output.scores, torch.tensor([[0.8, 0.5]]))


def test_instances_do_not_mix_in_inference(randomize):
    stage = randomize(_stage(feedback=True)).eval()
    rois, queries = torch.randn(5, DIM, POOL, POOL), torch.randn(5, DIM)
    part_queries = torch.randn(5, len(PARTS), PART_DIM)
    rows = torch.tensor([3, 1])
    with torch.no_grad():
        everything = stage(*stage.refine(rois, queries), part_queries)
        some = stage(*stage.refine(rois[rows], queries[rows]), part_queries[rows])
    for chosen, every in zip(some, everything, strict=True):
        torch.testing.assert_close(chosen, every[rows])


def test_parts_of_an_instance_attend_to_each_other(randomize):
    stage = randomize(_stage()).eval()
    inputs = torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM)
    part_queries = torch.randn(2, len(PARTS), PART_DIM)
    before = stage(*inputs, part_queries).part_queries
    part_queries[0, 0] += 1
    moved = (stage(*inputs, part_queries).part_queries - before).abs().amax(dim=-1) > 1e-4
    assert moved.tolist() == [[True] * 3, [False] * 3]


def test_closed_gates_leave_the_previous_part_query_alone_in_play(randomize):
    stage = randomize(_stage()).eval()
    gates = stage.selective_iteration.gates
    with torch.no_grad():
        gates.weight.zero_()
        gates.bias[:PART_DIM] = -1000
        gates.bias[PART_DIM:] = 1000
    part_queries = torch.randn(2, len(PARTS), PART_DIM)
    outputs = [
        stage(torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM), part_queries) for _ in range(2)
    ]
    torch.testing.assert_close(outputs[0].coordinates, outputs[1].coordinates)
    other = stage(torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM), part_queries + 1)
    assert (other.coordinates - outputs[0].coordinates).abs().max() > 1e-4


def test_light_stage_leaves_the_instance_query_as_it_is(randomize):
    stage = randomize(_stage())
    queries = torch.randn(2, DIM)
    features, same = stage.refine(torch.randn(2, DIM, POOL, POOL), queries)
    assert same is queries
    assert features.shape == (2, DIM, POOL, POOL)


def test_full_stage_refines_the_query_by_the_convolved_features(randomize):
    stage = randomize(_stage(feedback=True))
    rois, queries = torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM)
    features, refined = stage.refine(rois, queries)
    feedback = stage.feedback
    added = feedback.norm(queries + feedback.interaction(queries, features))
    torch.testing.assert_close(refined, feedback.feed_forward(added))
    torch.testing.assert_close(features, stage.convs(rois))


@pytest.mark.parametrize(("count", "channels"), [(1, [8]), (2, [16, 8]), (4, [16, 16, 16, 8])])
def test_convolutions_widen_and_end_at_the_width_of_the_query(count, channels):
    convs = [m for m in _stage(num_convs=count).convs if isinstance(m, torch.nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == channels


def test_no_convolution_is_refused():
    with pytest.raises(ValueError, match="NUM_KEYPOINT_CONVS must be at least 1, got 0"):
        _stage(num_convs=0)


def test_anchored_keypoints_move_with_the_attention_of_their_part(randomize):
    plain, anchored = _stage(), _stage(attention_anchors=True)
    randomize(plain).eval()
    anchored.load_state_dict(plain.state_dict())
    inputs = torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM), torch.randn(2, 3, PART_DIM)
    with torch.no_grad():
        from_box, from_attention = plain(*inputs), anchored.eval()(*inputs)
    moved = from_attention.coordinates - from_box.coordinates
    centers = attention_centers(from_box.attention)
    for part, keypoints in enumerate(PARTS):
        for keypoint in keypoints:
            torch.testing.assert_close(moved[:, keypoint], centers[:, part])
    torch.testing.assert_close(from_attention.sigmas, from_box.sigmas)
