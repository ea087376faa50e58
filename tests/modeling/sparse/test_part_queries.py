from __future__ import annotations

import math

import pytest
import torch

from querypose.modeling.sparse.part_queries import SelectiveIteration, SpatialPartEmbedding

DIM, PART_DIM = 8, 16


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
