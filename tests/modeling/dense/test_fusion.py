from __future__ import annotations

import pytest
import torch

from querypose.modeling.dense.fusion import PoseFusion, score_keypoints
from querypose.modeling.pose_nms import group_in_turns
from querypose.oks import pairwise_pose_oks
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

SIGMAS = (0.1, 0.1)
POSE = torch.tensor([[0.0, 0.0], [10.0, 10.0]])


def fusion(sigmas=SIGMAS, sort_by="pose_score", fuse=True) -> PoseFusion:
    return PoseFusion(sigmas, sort_by=sort_by, fuse=fuse)


def test_the_similarity_that_poses_are_matched_by():
    other = POSE + torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    similarity = pairwise_pose_oks(POSE[None], other[None], torch.tensor(SIGMAS))
    assert similarity.item() == pytest.approx(0.938355, abs=1e-6)


def test_two_poses_of_one_person_are_fused():
    poses = torch.stack([POSE, POSE + torch.tensor([0.2, 0.0])])
    part_scores = torch.tensor([0.9, 0.6])
    scores = part_scores[:, None] * torch.tensor([[0.5, 0.2], [0.4, 0.6]])
    torch.testing.assert_close(scores, torch.tensor([[0.45, 0.18], [0.24, 0.36]]))
    fused, fused_scores, person_of_pose = fusion()(poses, scores, part_scores)
    assert person_of_pose.tolist() == [0, 0]
    expected = torch.tensor([[[0.0, 0.0, 0.45], [10.2, 10.0, 0.36]]])
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(fused_scores, torch.tensor([0.405]))


def test_poses_of_one_person_who_stands_upright_are_fused():
    upright = torch.tensor([[20.0, 10.0], [20.0, 50.0]])
    poses = torch.stack([upright, upright + 0.5, upright + 30])
    _, _, person_of_pose = fusion()(poses, torch.full((3, 2), 0.5), torch.ones(3))
    assert person_of_pose.tolist() == [0, 0, 1]


CHAIN = torch.stack([POSE + torch.tensor([shift, 0.0]) for shift in (0.0, 1.5, 3.0)])
CHAIN_PART_SCORES = torch.tensor([0.9, 0.6, 0.5])
CHAIN_SCORES = CHAIN_PART_SCORES[:, None] * torch.tensor([[0.2, 0.2], [0.9, 0.9], [0.5, 0.1]])


def test_a_chain_of_poses_depends_on_what_comes_first():
    similarity = pairwise_pose_oks(CHAIN, CHAIN, torch.tensor(SIGMAS))
    assert similarity[0, 1].item() == pytest.approx(0.754840, abs=1e-6)
    assert similarity[0, 2].item() == pytest.approx(0.324652, abs=1e-6)
    chain = (CHAIN, CHAIN_SCORES, CHAIN_PART_SCORES)
    by_part = fusion(sort_by="part_score")(*chain)
    torch.testing.assert_close(by_part.scores, torch.tensor([0.54, 0.15]))
    assert by_part.person_of_pose.tolist() == [0, 0, 1]
    by_pose = fusion()(*chain)
    torch.testing.assert_close(by_pose.scores, torch.tensor([0.54]))
    assert by_pose.person_of_pose.tolist() == [0, 0, 0]


def test_without_fusion_seeds_stay_as_they_are():
    keep_seeds = fusion(sort_by="part_score", fuse=False)
    poses, scores, _ = keep_seeds(CHAIN, CHAIN_SCORES, CHAIN_PART_SCORES)
    torch.testing.assert_close(poses[..., :2], CHAIN[[0, 2]])
    torch.testing.assert_close(scores, torch.tensor([0.18, 0.15]))


def test_of_equal_scores_the_seed_wins_then_the_better_pose():
    poses = torch.stack([POSE + torch.tensor([shift, 0.0]) for shift in (0.0, 0.1, 0.2)])
    scores = torch.tensor([[0.2, 0.3], [0.2, 0.9], [0.9, 0.9]])
    part_scores = torch.tensor([0.9, 0.5, 0.5])
    fused = fusion()(poses, scores, part_scores).keypoints
    torch.testing.assert_close(fused[0, :, 0], torch.tensor([0.2, 10.2]))
    # The worst pose is the seed, and shares its second keypoint's score with a better one.
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.9], [0.3, 0.9]])
    fused = fusion(sort_by="part_score")(poses, scores, part_scores).keypoints
    torch.testing.assert_close(fused[0, :, 0], torch.tensor([0.2, 10.0]))


def test_two_persons_on_one_spot_stay_two():
    tall = torch.tensor([[0.0, 0.0], [2.0, 20.0]])
    wide = torch.tensor([[-9.0, 10.0], [11.0, 10.0]])
    scores = torch.full((2, 2), 0.5)
    fused = fusion()(torch.stack([tall, wide]), scores, torch.ones(2))
    assert fused.person_of_pose.tolist() == [0, 1]


def test_nobody():
    fused, scores, _ = fusion()(torch.zeros(0, 2, 2), torch.zeros(0, 2), torch.zeros(0))
    assert fused.shape == (0, 2, 3) and scores.shape == (0,)


def test_keypoint_scores_are_read_between_cells_and_at_borders():
    heatmaps = torch.stack([torch.arange(8.0).expand(6, 8), torch.ones(6, 8)])
    x = torch.tensor([3.25, 0.0, -0.25, -0.26, 7.0, 7.74, 7.75])
    poses = torch.stack([x, torch.full_like(x, 2.5)], dim=-1)[:, None].repeat(1, 2, 1)
    scores = score_keypoints(heatmaps, poses, torch.full((7,), 0.5))
    torch.testing.assert_close(scores[:, 0], torch.tensor([1.625, 0.0, 0.0, 0.0, 3.5, 3.5, 0.0]))
    torch.testing.assert_close(scores[:, 1], torch.tensor([0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.0]))


CASES = {"two": COCO_SKELETON, "three": COCO_SKELETON, "crowd": CROWDPOSE_SKELETON}


@pytest.mark.parametrize("case", [*CASES, "flip"])
def test_scores_and_fusion_equal_the_reference(case, dense_arrays, assert_close_to):
    prefix = f"{case}_"
    arrays = {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in dense_arrays("pinet_post").items()
        if key.startswith(prefix)
    }
    skeleton = CASES.get(case, COCO_SKELETON)
    sigmas = torch.tensor(skeleton.sigmas)
    heatmaps = arrays["H"].float()
    if case == "flip":
        mirrored = heatmaps[1].flip(-1)[list(skeleton.flip_indices)]
        heatmaps = (heatmaps[:1] + mirrored[None]) / 2
    poses, part_scores = arrays["poses"], arrays["r_p"]
    scores = score_keypoints(heatmaps[0], poses, part_scores)
    assert_close_to(scores, arrays["joint_scores"], 1e-5)
    assert_close_to(scores.mean(dim=1), arrays["pose_scores"], 1e-5)
    assert_close_to(pairwise_pose_oks(poses, poses, sigmas), arrays["oks"], 1e-5)

    order = scores.mean(dim=1).argsort(descending=True, stable=True)
    is_seed, groups = group_in_turns(poses, order, sigmas, 0.7)
    assert torch.equal(order[is_seed].int(), arrays["seed"])
    assert torch.equal(groups[is_seed].int().argmax(dim=0).int(), arrays["group"])
    for name, changes in (
        ("fused", {}),
        ("nms", {"fuse": False}),
        ("fused_by_rp", {"sort_by": "part_score"}),
    ):
        fused, fused_scores, group = fusion(skeleton.sigmas, **changes)(poses, scores, part_scores)
        if name != "fused_by_rp":
            assert torch.equal(group.int(), arrays["group"])
        fused[..., :2] = 4 * fused[..., :2] + 0.5
        assert_close_to(fused, arrays[name], 1e-5)
        assert_close_to(fused_scores, arrays[f"{name}_scores"], 1e-5)
