from __future__ import annotations

import pytest
import torch

from querypose.modeling.dense.part_head import PartCells, PartHead
from querypose.modeling.dense.part_layout import part_layout
from querypose.modeling.dense.pose_refinement import (
    GraphBlock,
    PoseRefinement,
    normalized_adjacency,
)
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON


def test_adjacency_of_coco():
    index = {name: i for i, name in enumerate(COCO_SKELETON.keypoints)}
    adjacency = normalized_adjacency(17, part_layout(COCO_SKELETON).edges)
    expected = {
        ("left_wrist", "left_elbow"): 0.408248,
        ("right_wrist", "right_wrist"): 0.5,
        ("nose", "left_eye"): 0.288675,
        ("right_shoulder", "right_hip"): 0.25,
        ("nose", "left_shoulder"): 0.0,
    }
    for (start, end), value in expected.items():
        assert adjacency[index[start], index[end]].item() == pytest.approx(value, abs=1e-6)
        assert adjacency[index[end], index[start]].item() == pytest.approx(value, abs=1e-6)


def test_adjacency_of_crowdpose():
    index = {name: i for i, name in enumerate(CROWDPOSE_SKELETON.keypoints)}
    adjacency = normalized_adjacency(14, part_layout(CROWDPOSE_SKELETON).edges)
    assert adjacency[index["head"], index["neck"]].item() == pytest.approx(0.353553, abs=1e-6)
    shoulder = index["left_shoulder"]
    assert adjacency[shoulder, shoulder].item() == pytest.approx(0.2, abs=1e-6)


def test_a_graph_block_mixes_nodes_from_the_left():
    block = GraphBlock(2).eval()
    with torch.no_grad():
        block.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        block.bias.copy_(torch.tensor([0.5, -30.0]))
    adjacency = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    nodes = torch.tensor([[[7.0, 9.0], [3.0, 4.0]]])
    # Node 1 is (3, 4) W = (3, 10).
    expected = torch.tensor([[[3.5, 0.0], [6.5, 0.0]]]) / (1 + block.norm.eps) ** 0.5
    torch.testing.assert_close(block(nodes, adjacency), expected)


@pytest.fixture
def refinement():
    torch.manual_seed(0)
    return PoseRefinement(channels=6, num_keypoints=3, edges=[(0, 1)], num_layers=2)


def cells_of(images, rows, columns) -> PartCells:
    images, rows, columns = map(torch.tensor, (images, rows, columns))
    return PartCells(images, torch.zeros_like(images), rows, columns)


def test_gradients_reach_features_but_not_poses(refinement):
    features = torch.randn(2, 6, 8, 8, requires_grad=True)
    poses = (8 * torch.rand(4, 3, 2)).requires_grad_()
    cells = cells_of([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    corrections = refinement(features, poses, cells)
    assert corrections.shape == (4, 3, 2)
    corrections.square().sum().backward()
    assert poses.grad is None
    assert features.grad.flatten(1).any(dim=1).all()
    assert all(parameter.grad is not None for parameter in refinement.parameters())


def test_each_pose_reads_its_own_image(refinement):
    refinement.eval()
    features, poses = torch.randn(2, 6, 8, 8), 7 * torch.rand(3, 3, 2)
    together = refinement(features, poses, cells_of([0, 1, 1], [1, 2, 3], [3, 2, 1]))
    alone = refinement(features[1:], poses[1:], cells_of([0, 0], [2, 3], [2, 1]))
    torch.testing.assert_close(together[1:], alone)


def test_no_poses_no_corrections(refinement):
    nothing = PartCells(*torch.zeros(4, 0, dtype=torch.int64))
    assert refinement.eval()(torch.randn(1, 6, 8, 8), torch.zeros(0, 3, 2), nothing).shape == (
        0,
        3,
        2,
    )


def test_the_released_sampler_reads_where_the_published_program_does():
    options = {"channels": 1, "num_keypoints": 1, "edges": [], "num_layers": 0}
    columns = torch.arange(9.0).expand(1, 1, 5, 9)
    poses = torch.tensor([[[4.0, 2.0]], [[8.0, 2.0]], [[2.0, 2.0]]])
    cells = cells_of([0] * 3, [2] * 3, [4] * 3)
    seen = {}
    for sampler in ("exact", "released"):
        model = PoseRefinement(**options, sampler=sampler).eval()
        model.first_block.register_forward_pre_hook(
            lambda _, inputs, key=sampler: seen.update({key: inputs[0].flatten()})
        )
        model(columns, poses, cells)
    assert seen["exact"].tolist() == [4.0, 8.0, 2.0]
    # x W / (W - 1) - 0.5; at the right border half of a value lies outside.
    torch.testing.assert_close(seen["released"], torch.tensor([4.0, 4.0, 1.75]))


def test_an_unknown_sampler_is_named():
    with pytest.raises(ValueError, match=r"MODEL\.PINET\.SAMPLER is one of .*, not 'shifted'"):
        PoseRefinement(channels=1, num_keypoints=1, edges=[], num_layers=0, sampler="shifted")


def test_the_head_starts_near_zero():
    torch.manual_seed(0)
    head = PartHead(in_channels=480, num_keypoints=17, num_parts=3)
    for conv, channels in ((head.heatmaps, 17), (head.parts, 3), (head.offsets, 102)):
        assert conv.weight.shape == (channels, 480, 1, 1)
        assert conv.weight.std().item() == pytest.approx(0.001, rel=0.1)
        assert not conv.bias.any()


def test_cells_read_maps():
    cells = cells_of([0, 1], [2, 0], [1, 3])._replace(parts=torch.tensor([1, 0]))
    parts = torch.arange(2 * 2 * 3 * 4).view(2, 2, 3, 4)
    assert cells.read_parts(parts).tolist() == [parts[0, 1, 2, 1], parts[1, 0, 0, 3]]
    offsets = torch.arange(2 * 8 * 3 * 4).view(2, 8, 3, 4)
    read = cells.read_offsets(offsets, num_keypoints=2)
    assert torch.equal(read[0], offsets[0, 4:, 2, 1].view(2, 2))
    assert torch.equal(read[1], offsets[1, :4, 0, 3].view(2, 2))
    assert cells.positions.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    mirrored = cells.mirrored(10, (2, 1, 0))
    assert mirrored.columns.tolist() == [8, 6] and mirrored.parts.tolist() == [1, 2]
