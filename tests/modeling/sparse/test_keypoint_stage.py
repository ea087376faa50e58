from __future__ import annotations

import math

import pytest
import torch

from querypose.modeling.sparse.keypoint_stage import (
    KeypointDecoderStage,
    KeypointStageOutput,
    PartHeads,
    SelectiveIteration,
    SpatialPartEmbedding,
    attention_centers,
)

DIM, PART_DIM, POOL = 8, 16, 3
# Neither the parts nor the keypoints inside them are in the dataset's order.
PARTS = ((4, 1), (5,), (0, 3, 2))
NUM_KEYPOINTS = 6


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


class TestSpatialPartEmbedding:
    @pytest.fixture
    def module(self, randomize) -> SpatialPartEmbedding:
        return randomize(SpatialPartEmbedding(dim=DIM, part_dim=PART_DIM, num_parts=3)).eval()

    def test_attention_is_a_distribution_over_the_doubled_map(self, module):
        _, attention = module(torch.randn(4, DIM, 5, 3), torch.randn(4, DIM))
        assert attention.shape == (4, 3, 10, 6)
        assert (attention >= 0).all()
        assert attention.std() > 1e-4
        torch.testing.assert_close(attention.sum(dim=(2, 3)), torch.ones(4, 3))

    def test_embedding_is_the_attention_weighted_sum_of_the_features(self, module):
        rois, queries = torch.randn(2, DIM, 5, 3), torch.randn(2, DIM)
        with torch.no_grad():
            embeddings, attention = module(rois, queries)
            features = module.upsample(rois)
            maps = module.attention_conv(features)
            for row in range(2):
                for part in range(3):
                    weights = maps[row, part].exp() / maps[row, part].exp().sum()
                    torch.testing.assert_close(attention[row, part], weights)
                    pooled = (weights * features[row]).sum(dim=(1, 2))
                    # A projection of the instance query for every part.
                    rows = slice(part * PART_DIM, (part + 1) * PART_DIM)
                    projection = module.query_projection.weight[rows] @ queries[row]
                    expected = (
                        module.embedding.weight @ pooled
                        + module.embedding.bias
                        + projection
                        + module.query_projection.bias[rows]
                    )
                    torch.testing.assert_close(embeddings[row, part], expected)

    def test_projections_start_xavier_uniform_by_the_fan_of_one_part(self):
        torch.manual_seed(0)
        module = SpatialPartEmbedding(dim=64, part_dim=32, num_parts=7)
        module.reset_parameters()
        bound = math.sqrt(6 / (64 + 32))
        for weight in module.query_projection.weight.chunk(7):
            assert 0.95 * bound < weight.abs().max() <= bound


def test_selective_iteration_equals_the_formula(randomize):
    module = randomize(SelectiveIteration(part_dim=PART_DIM))
    assert module.squeeze.weight.shape == (PART_DIM // 4, PART_DIM)
    assert module.squeeze.bias is None
    embeddings, part_queries = torch.randn(2, 3, PART_DIM), torch.randn(2, 3, PART_DIM)
    with torch.no_grad():
        for row in range(2):
            for part in range(3):
                e, q = embeddings[row, part], part_queries[row, part]
                hidden = module.norm(module.squeeze.weight @ (e + q)).clamp(min=0)
                g = 1 / (1 + (-(module.gates.weight @ hidden + module.gates.bias)).exp())
                expected = e * g[:PART_DIM] + q * g[PART_DIM:]
                actual = module(embeddings, part_queries)[row, part]
                torch.testing.assert_close(actual, expected)


class TestPartHeads:
    @pytest.fixture
    def heads(self, randomize) -> PartHeads:
        return randomize(PartHeads(part_dim=PART_DIM, part_indices=PARTS))

    def test_each_keypoint_is_read_off_its_own_part(self, heads):
        part_queries = torch.randn(2, len(PARTS), PART_DIM)
        coordinates, sigmas = heads(part_queries)
        assert coordinates.shape == sigmas.shape == (2, NUM_KEYPOINTS, 2)
        for row in range(2):
            for part, keypoints in enumerate(PARTS):
                x = part_queries[row, part]
                for keypoint in keypoints:
                    directed = heads.coordinate_weight[keypoint] @ x / x.square().sum().sqrt()
                    expected = directed + heads.coordinate_bias[keypoint]
                    torch.testing.assert_close(coordinates[row, keypoint], expected)
                    logit = heads.sigma_weight[keypoint] @ x + heads.sigma_bias[keypoint]
                    torch.testing.assert_close(sigmas[row, keypoint], 1 / (1 + (-logit).exp()))

    def test_coordinates_ignore_the_length_of_a_part_query_and_sigmas_do_not(self, heads):
        part_queries = torch.randn(2, len(PARTS), PART_DIM)
        coordinates, sigmas = heads(part_queries)
        longer_coordinates, longer_sigmas = heads(3 * part_queries)
        torch.testing.assert_close(longer_coordinates, coordinates)
        assert (longer_sigmas - sigmas).abs().max() > 0.01

    def test_half_precision_never_touches_them(self, heads):
        part_queries = torch.randn(2, len(PARTS), PART_DIM)
        expected = heads(part_queries)
        with torch.autocast("cpu", torch.bfloat16):
            actual = heads(part_queries)
            from_half = heads(part_queries.bfloat16())
        for exact, value, rounded in zip(expected, actual, from_half, strict=True):
            assert value.dtype == rounded.dtype == torch.float32
            assert torch.equal(value, exact)

    def test_weights_start_xavier_uniform_by_the_fan_of_their_part(self):
        torch.manual_seed(0)
        heads = PartHeads(part_dim=256, part_indices=PARTS)
        for keypoints in PARTS:
            bound = math.sqrt(6 / (2 * len(keypoints) + 256))
            for weight in (heads.coordinate_weight, heads.sigma_weight):
                assert 0.95 * bound < weight[list(keypoints)].abs().max() <= bound


def test_keypoint_score_is_one_minus_the_mean_sigma():
    sigmas = torch.tensor([[[0.1, 0.3], [0.0, 1.0]]])
    output = KeypointStageOutput(torch.zeros(1, 2, 2), sigmas, torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(output.scores, torch.tensor([[0.8, 0.5]]))


def test_attention_centers_are_box_relative():
    attention = torch.zeros(1, 3, 2, 4)
    attention[0, 0, 1, 3] = 1  # the last cell of four by two
    attention[0, 1] = 1 / 8  # everywhere
    attention[0, 2, 0, 0] = attention[0, 2, 0, 1] = 0.5  # between two cells
    expected = torch.tensor([[[0.375, 0.25], [0.0, 0.0], [-0.25, -0.25]]])
    torch.testing.assert_close(attention_centers(attention), expected)
    torch.testing.assert_close(attention_centers(attention.bfloat16()), expected)


class TestStage:
    def test_instances_do_not_mix_in_inference(self, randomize):
        stage = randomize(_stage(feedback=True)).eval()
        rois, queries = torch.randn(5, DIM, POOL, POOL), torch.randn(5, DIM)
        part_queries = torch.randn(5, len(PARTS), PART_DIM)
        rows = torch.tensor([3, 1])
        with torch.no_grad():
            everything = stage(*stage.refine(rois, queries), part_queries)
            some = stage(*stage.refine(rois[rows], queries[rows]), part_queries[rows])
        for chosen, every in zip(some, everything, strict=True):
            torch.testing.assert_close(chosen, every[rows])

    def test_parts_of_an_instance_attend_to_each_other(self, randomize):
        stage = randomize(_stage()).eval()
        inputs = torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM)
        part_queries = torch.randn(2, len(PARTS), PART_DIM)
        before = stage(*inputs, part_queries).part_queries
        part_queries[0, 0] += 1
        moved = (stage(*inputs, part_queries).part_queries - before).abs().amax(dim=-1) > 1e-4
        assert moved.tolist() == [[True] * 3, [False] * 3]

    def test_closed_gates_leave_the_previous_part_query_alone_in_play(self, randomize):
        stage = randomize(_stage()).eval()
        gates = stage.selective_iteration.gates
        with torch.no_grad():
            gates.weight.zero_()
            gates.bias[:PART_DIM] = -1000
            gates.bias[PART_DIM:] = 1000
        part_queries = torch.randn(2, len(PARTS), PART_DIM)
        outputs = [
            stage(torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM), part_queries)
            for _ in range(2)
        ]
        torch.testing.assert_close(outputs[0].coordinates, outputs[1].coordinates)
        other = stage(torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM), part_queries + 1)
        assert (other.coordinates - outputs[0].coordinates).abs().max() > 1e-4

    def test_light_stage_leaves_the_instance_query_as_it_is(self, randomize):
        stage = randomize(_stage())
        queries = torch.randn(2, DIM)
        features, same = stage.refine(torch.randn(2, DIM, POOL, POOL), queries)
        assert same is queries
        assert features.shape == (2, DIM, POOL, POOL)

    def test_full_stage_refines_the_query_by_the_convolved_features(self, randomize):
        stage = randomize(_stage(feedback=True))
        rois, queries = torch.randn(2, DIM, POOL, POOL), torch.randn(2, DIM)
        features, refined = stage.refine(rois, queries)
        feedback = stage.feedback
        added = feedback.norm(queries + feedback.interaction(queries, features))
        torch.testing.assert_close(refined, feedback.feed_forward(added))
        torch.testing.assert_close(features, stage.convs(rois))

    @pytest.mark.parametrize(("count", "channels"), [(1, [8]), (2, [16, 8]), (4, [16, 16, 16, 8])])
    def test_convolutions_widen_and_end_at_the_width_of_the_query(self, count, channels):
        convs = [m for m in _stage(num_convs=count).convs if isinstance(m, torch.nn.Conv2d)]
        assert [conv.out_channels for conv in convs] == channels

    def test_no_convolution_is_refused(self):
        with pytest.raises(ValueError, match="NUM_KEYPOINT_CONVS must be at least 1, got 0"):
            _stage(num_convs=0)

    def test_anchored_keypoints_move_with_the_attention_of_their_part(self, randomize):
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
