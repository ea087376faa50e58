from __future__ import annotations

import math

import pytest
import torch

from querypose.modeling.sparse.part_heads import PartHeads

PART_DIM = 16
# Neither the parts nor the keypoints inside them are in the dataset's order.
PARTS = ((4, 1), (5,), (0, 3, 2))
NUM_KEYPOINTS = 6


@pytest.fixture
def heads(randomize) -> PartHeads:
    return randomize(PartHeads(part_dim=PART_DIM, part_indices=PARTS))


def test_each_keypoint_is_read_off_its_own_part(heads):
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


def test_coordinates_ignore_the_length_of_a_part_query_and_sigmas_do_not(heads):
    part_queries = torch.randn(2, len(PARTS), PART_DIM)
    coordinates, sigmas = heads(part_queries)
    longer_coordinates, longer_sigmas = heads(3 * part_queries)
    torch.testing.assert_close(longer_coordinates, coordinates)
    assert (longer_sigmas - sigmas).abs().max() > 0.01


def test_half_precision_never_touches_them(heads):
    part_queries = torch.randn(2, len(PARTS), PART_DIM)
    expected = heads(part_queries)
    with torch.autocast("cpu", torch.bfloat16):
        actual = heads(part_queries)
        from_half = heads(part_queries.bfloat16())
    for exact, value, rounded in zip(expected, actual, from_half, strict=True):
        assert value.dtype == rounded.dtype == torch.float32
        assert torch.equal(value, exact)


def test_weights_start_xavier_uniform_by_the_fan_of_their_part():
    torch.manual_seed(0)
    heads = PartHeads(part_dim=256, part_indices=PARTS)
    for keypoints in PARTS:
        bound = math.sqrt(6 / (2 * len(keypoints) + 256))
        for weight in (heads.coordinate_weight, heads.sigma_weight):
            assert 0.95 * bound < weight[list(keypoints)].abs().max() <= bound
