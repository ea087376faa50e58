"""CIR-QEM's small heads against the numbers of plain loops."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from querypose.modeling.dense.quality_criterion import QualityCriterion
from querypose.modeling.dense.quality_head import QualityHead

VARIANTS = (
    "default",
    "expt1",
    "expt2",
    "expt3",
    "gaussian",
    "gaussian_quality",
    "discrete",
    "discrete_quality",
    "n0",
    "n3",
    "n12",
    "auto",
    "sp",
    "kps",
    "deform",
    "pixel",
    "noscale",
    "bn_train",
)
# (file, seed, variant) of the small heads.
MINI = [
    *[("quality_mini", 319, variant) for variant in VARIANTS],
    ("quality_mini_crowdpose", 320, "default"),
    ("quality_mini_crowdpose", 320, "gaussian_quality"),
]
# They differ from others in training alone.
NOT_DECODED = ("expt1", "pixel", "noscale", "bn_train")


@pytest.fixture
def mini_head(quality, dense_arrays, dense_weights, rebuild):
    """A small head, its criterion, its features and their mirrored view's, and its arrays."""

    def build(name, seed, variant):
        arrays = dense_arrays(name)
        skeleton = quality.SKELETONS[arrays["gt0_keypoints"].shape[1]]
        head = QualityHead(
            in_channels=24,
            num_keypoints=skeleton.num_keypoints,
            keypoint_channels=8,
            instance_channels=16,
            score_channels=8,
            **quality.HEADS.get(variant, {}),
        )
        weights = quality.head_state_dict(dense_weights(name, seed, variant))
        missing, unexpected = head.load_state_dict(weights, strict=False)
        assert not unexpected and all("num_batches_tracked" in key for key in missing)
        head.train(variant == "bn_train")
        criterion = QualityCriterion(sigmas=skeleton.sigmas, **quality.CRITERIA.get(variant, {}))
        views = [rebuild.features(2, 24, 20, 24, seed + shift) for shift in (0, 1000)]
        own = {
            key.removeprefix(f"{variant}_"): value
            for key, value in arrays.items()
            if key.startswith(f"{variant}_")
        }
        if variant in ("gaussian", "discrete"):
            own = {key: value for key, value in own.items() if not key.startswith("quality_")}
        return head, criterion, views, own | {k: v for k, v in arrays.items() if k[:2] == "gt"}

    return build


@pytest.mark.parametrize(("name", "seed", "variant"), MINI)
def test_maps_equal_the_reference(name, seed, variant, mini_head, assert_close_to):
    head, _, (features, _), arrays = mini_head(name, seed, variant)
    aggregated = []
    head.keypoint_decoder.keypoint.register_forward_pre_hook(
        lambda _, inputs: aggregated.append(inputs[0])
    )
    with torch.no_grad():
        maps = head(features)
        displacements = head.displacements_everywhere(maps)
    assert_close_to(maps.scores, arrays["score"])
    if "quality" in arrays:
        assert_close_to(maps.qualities, arrays["quality"])
    if variant == "default":
        assert_close_to(displacements, arrays["displacement"])
        assert_close_to(maps.queries, arrays["query"])
        assert_close_to(maps.keypoint_features[..., ::4, ::4], arrays["R_k_sub"])
        assert_close_to(aggregated[0][..., ::4, ::4], arrays["R_prime_sub"])
        semantic = head.keypoint_decoder.semantic(maps.keypoint_features)
        assert_close_to(semantic[..., ::4, ::4], arrays["semantic_sub"])
    else:
        assert_close_to(displacements[..., ::2, ::2], arrays["displacement"])


@pytest.mark.parametrize(("name", "seed", "variant"), MINI)
def test_losses_and_gradients_equal_the_reference(
    name, seed, variant, mini_head, quality, assert_close_to
):
    head, criterion, (features, _), arrays = mini_head(name, seed, variant)
    features.requires_grad_()
    maps = head(features)
    targets, masks = quality.targets_and_masks(arrays)
    poses = head.poses_at(maps, targets.cells)
    normalizers = criterion.normalizers(targets, quality.image_sizes(masks))
    losses = criterion(maps, poses, targets, masks, normalizers)

    for loss, value in losses.items():
        assert value.item() == pytest.approx(arrays[loss].item(), rel=2e-4)
    assert ("loss_quality" in losses) == ("loss_quality" in arrays)
    assert normalizers["loss_displacement"] == arrays["entries"]
    if variant != "pixel":
        assert normalizers["loss_cir"] == arrays["normaliser"]
    oks = criterion.oks(poses, targets)
    if "target" in arrays:
        assert_close_to(criterion.labels(oks, targets), arrays["target"])
    if "owner" in arrays:
        assert (targets.owners.numpy() == arrays["owner"]).all()
        assert_close_to(oks, arrays["oks"][targets.owners.numpy() >= 0])

    tolerance = 5e-3 if variant == "bn_train" else 2e-3
    tensors = dict(head.named_parameters())
    for group, loss in (("cir", losses["loss_cir"]), ("total", sum(losses.values()))):
        expected = {
            key.removeprefix(f"gradnorm_{group}_"): value.item()
            for key, value in arrays.items()
            if key.startswith(f"gradnorm_{group}_")
        }
        of = [features if key == "R_g" else tensors[quality.head_name(key)] for key in expected]
        gradients = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
        floor = 1e-4 * max(expected.values(), default=0)
        for (key, norm), gradient in zip(expected.items(), gradients, strict=True):
            actual = 0.0 if gradient is None else gradient.norm().item()
            assert abs(actual - norm) <= tolerance * max(norm, floor), key


@pytest.mark.parametrize("view", ["plain", "flip"])
@pytest.mark.parametrize(
    ("name", "seed", "variant"), [row for row in MINI if row[2] not in NOT_DECODED]
)
def test_poses_equal_the_reference(name, seed, variant, view, mini_head, quality, assert_close_to):
    head, _, views, arrays = mini_head(name, seed, variant)
    with torch.no_grad():
        maps = [head(features) for features in views]
        scores = maps[0].ranking(maps[1] if view == "flip" else None)
        readers = [partial(head.poses_at, of_view) for of_view in maps]
        quality.assert_readout_equals(arrays, view, scores, readers, assert_close_to)
