"""CIR-QEM's head, targets, losses and readout against the numbers of plain loops."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances, Keypoints
from torch import Tensor, nn

from querypose.config import read_config
from querypose.modeling.dense.flip import average_maps
from querypose.modeling.dense.persons import LabeledPersons
from querypose.modeling.dense.quality_criterion import QualityCriterion
from querypose.modeling.dense.quality_head import QualityHead, QualityMaps
from querypose.modeling.dense.quality_readout import QualityReadout
from querypose.modeling.dense.quality_targets import QualityTargets, person_centers
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

# By the number of keypoints: COCO has the rule, CrowdPose does not.
MIN_AREA = {17: 1024.0, 14: 0.0}

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
# The switches of each variant of quality_mini, as arguments of the head and of the criterion.
HEADS: dict[str, dict[str, Any]] = {
    "expt1": {"kqe": False, "pqe": False},
    "expt2": {"kqe": False, "pqe": False},
    "expt3": {"pqe": False},
    "gaussian_quality": {"quality_branch": True},
    "discrete_quality": {"quality_branch": True},
    "n0": {"num_semantic_points": 0},
    "n3": {"num_semantic_points": 3},
    "n12": {"num_semantic_points": 12},
    "auto": {"pose_query": "auto"},
    "sp": {"pose_query": "sp"},
    "kps": {"pose_query": "kps"},
    "deform": {"aggregate": "deform"},
}
CRITERIA: dict[str, dict[str, Any]] = {
    "expt1": {"instance_label": "gaussian"},
    "gaussian": {"instance_label": "gaussian"},
    "gaussian_quality": {"instance_label": "gaussian", "quality_branch": True},
    "discrete": {"instance_label": "discrete"},
    "discrete_quality": {"instance_label": "discrete", "quality_branch": True},
    "pixel": {"cir_reduction": "pixel"},
    "noscale": {"scale_norm": False},
}

_NAMES = (
    ("head.rk.conv.", "keypoint_maps.features.0."),
    ("head.rk.bn.", "keypoint_maps.features.1."),
    ("head.query.", "keypoint_maps.query."),
    ("head.semantic.", "keypoint_decoder.semantic."),
    ("head.aggregate.bn.", "keypoint_decoder.aggregation_norm."),
    ("head.aggregate.", "keypoint_decoder.aggregation."),
    ("head.keypoint.", "keypoint_decoder.keypoint."),
    ("head.ri.conv.", "score_branch.features.0."),
    ("head.ri.bn.", "score_branch.features.1."),
    ("head.auto.", "score_branch.free_points."),
    ("head.score_reduce.conv.", "score_branch.reduce."),
    ("head.score_reduce.bn.", "score_branch.reduce_norm."),
    ("head.score_out.", "score_branch.score."),
    ("head.quality_out.", "score_branch.quality."),
)


def head_name(golden_name: str) -> str:
    """The name of a tensor in :class:`QualityHead`."""
    for golden, ours in _NAMES:
        if golden_name.startswith(golden):
            return ours + golden_name.removeprefix(golden)
    raise KeyError(golden_name)


def head_state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`QualityHead` from the golden file's tensors."""
    return {
        # The kernel of a 1 x N convolution.
        head_name(name): value.unsqueeze(2) if value.dim() == 3 else value
        for name, value in weights.items()
        if name.startswith("head.")
    }


def labeled_instances(arrays: dict[str, np.ndarray], index: int, prefix: str = "") -> Instances:
    """Ground truth of image ``index``, as a mapper gives it."""
    height, width = arrays[f"{prefix}gt{index}_ignore"].shape
    return Instances(
        (4 * height, 4 * width),
        gt_keypoints=Keypoints(torch.from_numpy(arrays[f"{prefix}gt{index}_keypoints"])),
        gt_areas=torch.from_numpy(arrays[f"{prefix}gt{index}_area"]),
    )


def persons_of(arrays: dict[str, np.ndarray], index: int, prefix: str = "") -> LabeledPersons:
    """Ground truth of image ``index``, in cells."""
    return LabeledPersons.from_instances(
        labeled_instances(arrays, index, prefix),
        num_keypoints=arrays[f"{prefix}gt{index}_keypoints"].shape[1],
        area_field="gt_areas",
        device=torch.device("cpu"),
    )


def targets_and_masks(
    arrays: dict[str, np.ndarray], prefix: str = ""
) -> tuple[QualityTargets, Tensor]:
    """Targets and ignore masks of all images of a golden file."""
    pattern = re.compile(re.escape(prefix) + r"gt(\d+)_ignore")
    num_images = sum(bool(pattern.fullmatch(name)) for name in arrays)
    persons = [persons_of(arrays, index, prefix) for index in range(num_images)]
    masks = [torch.from_numpy(arrays[f"{prefix}gt{index}_ignore"]) for index in range(num_images)]
    masks = torch.stack(masks)
    smallest = MIN_AREA[persons[0].labeled.shape[1]]
    return QualityTargets.from_persons(persons, tuple(masks.shape[-2:]), smallest), masks


def image_sizes(masks: Tensor) -> list[tuple[int, int]]:
    """Sizes in pixels of the images whose ignore masks are given."""
    return [(4 * masks.shape[1], 4 * masks.shape[2])] * len(masks)


SKELETONS = {17: COCO_SKELETON, 14: CROWDPOSE_SKELETON}
# (file, seed, variant) of the small heads.
MINI = [
    *[("quality_mini", 319, variant) for variant in VARIANTS],
    ("quality_mini_crowdpose", 320, "default"),
    ("quality_mini_crowdpose", 320, "gaussian_quality"),
]
# They differ from others in training alone.
NOT_DECODED = ("expt1", "pixel", "noscale", "bn_train")


@pytest.fixture
def mini_head(dense_arrays, dense_weights, rebuild):
    """A small head, its criterion, its features and their mirrored view's, and its arrays."""

    def build(name, seed, variant):
        arrays = dense_arrays(name)
        skeleton = SKELETONS[arrays["gt0_keypoints"].shape[1]]
        head = QualityHead(
            in_channels=24,
            num_keypoints=skeleton.num_keypoints,
            keypoint_channels=8,
            instance_channels=16,
            score_channels=8,
            **HEADS.get(variant, {}),
        )
        weights = head_state_dict(dense_weights(name, seed, variant))
        missing, unexpected = head.load_state_dict(weights, strict=False)
        assert not unexpected and all("num_batches_tracked" in key for key in missing)
        head.train(variant == "bn_train")
        criterion = QualityCriterion(sigmas=skeleton.sigmas, **CRITERIA.get(variant, {}))
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
def test_losses_and_gradients_equal_the_reference(name, seed, variant, mini_head, assert_close_to):
    head, criterion, (features, _), arrays = mini_head(name, seed, variant)
    features.requires_grad_()
    maps = head(features)
    targets, masks = targets_and_masks(arrays)
    poses = head.poses_at(maps, targets.cells)
    normalizers = criterion.normalizers(targets, image_sizes(masks))
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
        of = [features if key == "R_g" else tensors[head_name(key)] for key in expected]
        gradients = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
        floor = 1e-4 * max(expected.values(), default=0)
        for (key, norm), gradient in zip(expected.items(), gradients, strict=True):
            actual = 0.0 if gradient is None else gradient.norm().item()
            assert abs(actual - norm) <= tolerance * max(norm, floor), key


@pytest.mark.parametrize("view", ["plain", "flip"])
@pytest.mark.parametrize(
    ("name", "seed", "variant"), [row for row in MINI if row[2] not in NOT_DECODED]
)
def test_poses_equal_the_reference(name, seed, variant, view, mini_head, assert_close_to):
    head, _, views, arrays = mini_head(name, seed, variant)
    with torch.no_grad():
        maps = [head(features) for features in views]
        scores = maps[0].ranking(maps[1] if view == "flip" else None)
        readers = [partial(head.poses_at, of_view) for of_view in maps]
        assert_readout_equals(arrays, view, scores, readers, assert_close_to)


def assert_readout_equals(arrays, view, scores, readers, assert_close_to, tolerance=1e-4):
    """Compares peaks, poses, scores and the result of the suppression."""
    skeleton = SKELETONS[arrays[f"{view}0_poses"].shape[1]]
    readout = QualityReadout(skeleton=skeleton, max_peaks=30, nms=True)
    readers = readers if view == "flip" else readers[:1]
    cells = readout.peaks(scores)
    for index, found in enumerate(readout.poses(scores, *readers)):
        expected = arrays[f"{view}{index}_cells"]
        own = cells.images == index
        actual = torch.stack([cells.rows[own], cells.columns[own]], dim=1)
        # Peaks may tie to 1e-5, so rows are matched by their cell.
        order = [actual.tolist().index(cell) for cell in expected.tolist()]
        assert len(order) == len(actual)
        poses = found.places
        assert_close_to(poses[order], arrays[f"{view}{index}_poses"], tolerance)
        assert_close_to(found.scores[order], arrays[f"{view}{index}_scores"], tolerance)
        kept = readout.select(found)
        expected_poses = poses[order][arrays[f"{view}{index}_keep"]]
        assert_close_to(kept.places, expected_poses, tolerance)


@pytest.mark.parametrize("dataset", ["coco", "crowdpose"])
def test_targets_equal_the_reference(dataset, dense_arrays, assert_close_to):
    arrays = dense_arrays("quality_targets")
    prefix = f"{dataset}_"
    targets, masks = targets_and_masks(arrays, prefix)
    assert (targets.owners.numpy() == arrays[f"{prefix}owner"]).all()
    for index in range(len(masks)):
        expected = arrays[f"{prefix}gt{index}_centres"]
        persons = persons_of(arrays, index, prefix)
        centers, present = person_centers(persons, MIN_AREA[persons.labeled.shape[1]])
        assert (present.numpy() == expected[:, 2].astype(bool)).all()
        assert_close_to(centers[present], expected[expected[:, 2] > 0, :2], 1e-5)


@pytest.mark.parametrize("reduction", ["omega", "pixel"])
@pytest.mark.parametrize("label", ["cir", "gaussian", "discrete"])
@pytest.mark.parametrize("dataset", ["coco", "crowdpose"])
def test_losses_of_given_maps_equal_the_reference(
    dataset, label, reduction, dense_arrays, assert_close_to
):
    arrays = dense_arrays("quality_targets")
    prefix = f"{dataset}_"
    targets, masks = targets_and_masks(arrays, prefix)
    scores, displacements = (
        torch.from_numpy(arrays[prefix + name]) for name in ("score", "displacement")
    )
    maps = QualityMaps(scores, None, displacements, None, displacements)
    offsets = targets.cells.read(displacements).unflatten(1, (-1, 2))
    poses = targets.cells.positions[:, None] + offsets
    for scale_norm, name in ((True, "scale"), (False, "noscale")):
        criterion = QualityCriterion(
            sigmas=SKELETONS[poses.shape[1]].sigmas,
            instance_label=label,
            cir_reduction=reduction,
            scale_norm=scale_norm,
        )
        normalizers = criterion.normalizers(targets, image_sizes(masks))
        losses = criterion(maps, poses, targets, masks, normalizers)
        expected = arrays[f"{prefix}{label}_{reduction}_loss_cir"]
        assert losses["loss_cir"].item() == pytest.approx(expected.item(), rel=1e-5)
        expected = arrays[f"{prefix}{name}_loss_displacement"]
        assert losses["loss_displacement"].item() == pytest.approx(expected.item(), rel=1e-5)
    labels = criterion.labels(criterion.oks(poses, targets), targets)
    assert_close_to(labels, arrays[f"{prefix}{label}_target"], 1e-5)
    assert normalizers["loss_displacement"] == arrays[f"{prefix}entries"]
    if reduction == "omega":
        assert normalizers["loss_cir"] == arrays[f"{prefix}normaliser"]


@pytest.mark.parametrize("view", ["plain", "flip"])
@pytest.mark.parametrize("dataset", ["coco", "crowdpose"])
def test_poses_of_given_maps_equal_the_reference(dataset, view, dense_arrays, assert_close_to):
    prefix = f"{dataset}_post_"
    arrays = {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in dense_arrays("quality_targets").items()
        if key.startswith(prefix)
    }
    arrays["displacement"] = torch.from_numpy(
        dense_arrays("quality_targets")[f"{dataset}_displacement"]
    )

    def reader(displacements):
        return lambda cells: (
            cells.positions[:, None] + cells.read(displacements).unflatten(1, (-1, 2))
        )

    scores = arrays["score"]
    if view == "flip":
        scores = average_maps(scores, arrays["score_mirrored"])
    readers = [reader(arrays["displacement"]), reader(arrays["displacement_mirrored"])]
    assert_readout_equals(arrays, view, scores, readers, assert_close_to, tolerance=1e-5)


@pytest.fixture
def hrnet_model(repository, dense_weights):
    """CIR-QEM with HRNet-W32 and the golden weights."""
    cfg = read_config(repository / "configs/coco/quality_pose_hrnet_w32.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    weights = dense_weights("quality_w32", 335)
    backbone = {
        f"backbone.bottom_up.{name.removeprefix('backbone.')}": value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    head = {f"head.{name}": value for name, value in head_state_dict(weights).items()}
    missing, unexpected = model.load_state_dict(backbone | head, strict=False)
    assert not unexpected and all("num_batches_tracked" in key for key in missing)
    return model


@pytest.mark.parametrize("flip_test", [False, True])
def test_whole_model_finds_the_persons_of_the_reference(
    flip_test, hrnet_model, dense_arrays, rebuild, assert_close_to
):
    arrays = dense_arrays("quality_w32")
    hrnet_model.flip_test = flip_test
    (image,) = rebuild.images([(96, 128)], 335)
    with torch.no_grad():
        (output,) = hrnet_model([{"image": image, "return_maps": True}])
    view = "flip" if flip_test else "plain"
    persons, kept = output["instances"], arrays[f"{view}0_keep"]
    poses = arrays[f"{view}0_poses"][kept]
    assert_close_to(persons.pred_keypoints[..., :2], 4 * poses + 0.5)
    assert_close_to(persons.scores, arrays[f"{view}0_scores"][kept])
    scores = arrays["score"][0, 0]
    if flip_test:
        scores = (scores + arrays["score_mirrored"][0, 0, :, ::-1]) / 2
    assert_close_to(output["maps"]["score"], scores)


def test_whole_model_has_the_losses_and_gradients_of_the_reference(
    hrnet_model, dense_arrays, rebuild
):
    arrays = dense_arrays("quality_w32")
    hrnet_model.train()
    for module in hrnet_model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    (image,) = rebuild.images([(96, 128)], 335)
    mask = torch.from_numpy(arrays["gt0_ignore"])
    given = {"image": image, "instances": labeled_instances(arrays, 0), "ignore_mask": mask}
    losses = hrnet_model([given])
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(arrays[name].item(), rel=2e-4)
    sum(losses.values()).backward()
    squares = {}
    for name, parameter in hrnet_model.named_parameters():
        group = name.removeprefix("head.")
        if name.startswith("backbone."):
            group = "backbone." + name.split(".")[2]
        squares[group] = squares.get(group, 0) + parameter.grad.double().square().sum().item()
    norms = {
        key.removeprefix("gradnorm_"): value.item()
        for key, value in arrays.items()
        if key.startswith("gradnorm_")
    }
    for name, norm in norms.items():
        group = name if name.startswith("backbone.") else head_name(name)
        floor = 1e-4 * max(norms.values())
        assert abs(squares[group] ** 0.5 - norm) <= 2e-3 * max(norm, floor), name
