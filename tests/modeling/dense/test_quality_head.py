import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from querypose.modeling.dense.cells import Cells
from querypose.modeling.dense.quality_head import QualityHead, square_spiral

SMALL = {
    "in_channels": 6,
    "num_keypoints": 5,
    "keypoint_channels": 4,
    "instance_channels": 6,
    "score_channels": 3,
}


@pytest.fixture
def small_head():
    """A head whose queries and points are cells away from where they start."""

    def build(**switches):
        torch.manual_seed(0)
        head = QualityHead(**(SMALL | switches)).eval()
        for name, parameter in head.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.6 if "query" in name else 0.3)
        return head

    return build


@pytest.fixture
def features():
    return torch.rand(3, 6, 9, 11, generator=torch.Generator().manual_seed(1)) * 2


@pytest.fixture
def cells():
    """Corners, borders and inner cells; none of the second image."""
    return Cells(
        torch.tensor([0, 0, 0, 2, 2]), torch.tensor([0, 4, 8, 5, 8]), torch.tensor([0, 6, 10, 0, 3])
    )


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"num_semantic_points": 0},
        {"num_semantic_points": 4},
        {"aggregate": "deform"},
        {"aggregate": "deform", "num_semantic_points": 3},
        {"kqe": False, "pqe": False},
        {"pqe": False},
        {"pose_query": "sp"},
    ],
)
class TestAtSomeCells:
    def test_poses_equal_those_of_the_whole_map(self, switches, small_head, features, cells):
        head = small_head(**switches)
        with torch.no_grad():
            maps = head(features)
            poses = head.poses_at(maps, cells)
            displacements = cells.read(head.displacements_everywhere(maps)).unflatten(1, (-1, 2))
        expected = cells.positions[:, None] + displacements
        assert displacements.abs().max() > 1
        torch.testing.assert_close(poses, expected, rtol=1e-5, atol=1e-5)

    def test_gradients_equal_those_of_the_whole_map(self, switches, small_head, features, cells):
        head = small_head(**switches)
        features.requires_grad_()
        weights = torch.randn(len(cells.images), 5, 2, generator=torch.Generator().manual_seed(2))
        tensors = [features, *head.keypoint_maps.parameters(), *head.keypoint_decoder.parameters()]
        maps = head(features)
        sparse = (head.poses_at(maps, cells) * weights).sum()
        everywhere = cells.read(head.displacements_everywhere(maps)).unflatten(1, (-1, 2))
        dense = (everywhere * weights).sum()
        sparse_gradients = torch.autograd.grad(sparse, tensors, retain_graph=True)
        dense_gradients = torch.autograd.grad(dense, tensors)
        for actual, expected in zip(sparse_gradients, dense_gradients, strict=True):
            scale = expected.abs().max().item()
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(scale, 1))


def test_no_cells_give_no_poses_and_touch_every_parameter(small_head, features):
    head = small_head(aggregate="deform")
    nowhere = Cells(*torch.zeros(3, 0, dtype=torch.long))
    poses = head.poses_at(head(features), nowhere)
    assert poses.shape == (0, 5, 2)
    poses.sum().backward()
    assert all(p.grad is not None for p in head.keypoint_decoder.parameters())


def test_batch_norm_of_deform_has_the_statistics_of_all_cells(small_head, features, cells):
    head = small_head(aggregate="deform")
    head.keypoint_decoder.aggregation_norm.train()
    maps = head(features)
    displacements = cells.read(head.displacements_everywhere(maps)).unflatten(1, (-1, 2))
    poses = head.poses_at(maps, cells)
    torch.testing.assert_close(poses, cells.positions[:, None] + displacements)


def test_semantic_points_of_a_constant_map_add_up(cells):
    for num_points, factor in ((9, 9), (3, 3), (0, 1)):
        head = QualityHead(**(SMALL | {"num_semantic_points": num_points}))
        constant = torch.full((1, 20, 9, 11), 2.5)
        still = torch.zeros(1, 10, 9, 11)
        with torch.no_grad():
            aggregated = head.keypoint_decoder._aggregate_everywhere(constant, still)
        inner = aggregated[..., 2:-2, 2:-2]
        torch.testing.assert_close(inner, torch.full_like(inner, 2.5 * factor), rtol=1e-2, atol=0)


def test_a_query_half_a_cell_outside_sees_half():
    head = QualityHead(**(SMALL | {"num_semantic_points": 0}))
    constant, half_left = torch.full((1, 20, 9, 11), 2.5), torch.zeros(1, 10, 9, 11)
    half_left[:, ::2] = -0.5
    aggregated = head.keypoint_decoder._aggregate_everywhere(constant, half_left)
    torch.testing.assert_close(aggregated[..., 0], torch.full((1, 20, 9), 1.25))
    torch.testing.assert_close(aggregated[..., 1:], torch.full((1, 20, 9, 10), 2.5))


def test_a_pose_query_that_goes_nowhere_sees_copies_of_its_own_cell(small_head, features):
    branch = small_head().score_branch
    with torch.no_grad():
        instance = branch.features(features)
        gathered = branch._gather(instance, torch.zeros(3, 5, 2, 9, 11))
        expected = branch.reduce(instance.repeat(1, 5, 1, 1))
    torch.testing.assert_close(gathered, expected, rtol=1e-5, atol=1e-5)


def test_a_pose_query_gathers_the_features_where_its_points_are(small_head, features):
    branch = small_head().score_branch
    points = torch.zeros(3, 5, 2, 9, 11)
    points[:, 3, 0] = 2
    with torch.no_grad():
        instance = branch.features(features)
        shifted = torch.zeros_like(instance)
        shifted[..., :-2] = instance[..., 2:]
        expected = branch.reduce(torch.cat([instance] * 3 + [shifted] + [instance], dim=1))
        gathered = branch._gather(instance, points)
    torch.testing.assert_close(gathered, expected, rtol=1e-5, atol=1e-5)


def test_semantic_points_start_apart_and_stay_apart(features, cells):
    torch.manual_seed(0)
    head = QualityHead(**SMALL)
    bias = head.keypoint_decoder.semantic.bias.view(5, 9, 2)
    torch.testing.assert_close(bias[0], square_spiral(9))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    head.poses_at(head(features), cells).square().sum().backward()
    optimizer.step()
    rows = head.keypoint_decoder.semantic.weight.view(5, 9, -1)
    for first in range(9):
        for second in range(first):
            assert (bias[:, first] - bias[:, second]).abs().amax(dim=1).min() > 0.5
            assert (rows[:, first] - rows[:, second]).abs().max() > 0


def test_the_spiral_begins_with_the_unit_grid():
    spiral = square_spiral(11)
    assert {tuple(point) for point in spiral[:9].int().tolist()} == {
        (x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)
    }
    assert spiral[9:].tolist() == [[2, -1], [2, 0]]
    assert square_spiral(0).shape == (0, 2)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"kqe": False}, "KQE False"),
        ({"kqe": False, "pqe": False, "aggregate": "deform"}, "needs MODEL.QUALITY_POSE.KQE"),
        ({"pqe": False, "pose_query": "auto"}, "needs MODEL.QUALITY_POSE.PQE"),
        ({"num_semantic_points": 0, "aggregate": "deform"}, "'deform' needs"),
        ({"num_semantic_points": 0, "pose_query": "sp"}, "'sp' needs"),
        ({"num_semantic_points": -1}, "not negative"),
        ({"aggregate": "mean"}, "AGGREGATE is one of"),
        ({"pose_query": "center"}, "POSE_QUERY is one of"),
    ],
)
def test_switches_that_contradict_each_other_are_refused(switches, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        QualityHead(**(SMALL | switches))


@pytest.mark.parametrize(
    ("in_channels", "size", "parameters", "multiply_adds"),
    [(480, 128, 319_591, 5.214e9), (720, 160, 432_871, 11.04e9)],
)
def test_published_widths_cost_what_the_paper_says(in_channels, size, parameters, multiply_adds):
    with FakeTensorMode():
        head = QualityHead(in_channels=in_channels, num_keypoints=17).eval()
        assert sum(p.numel() for p in head.parameters()) == parameters
        with FlopCounterMode(display=False) as counter:
            head.displacements_everywhere(head(torch.zeros(1, in_channels, size, size)))
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=2e-3)
