"""CIR-QEM's targets, losses and readout of given maps against the numbers of plain loops."""

from __future__ import annotations

import pytest
import torch

from querypose.modeling.dense.flip import average_maps
from querypose.modeling.dense.quality_criterion import QualityCriterion
from querypose.modeling.dense.quality_head import QualityMaps
from querypose.modeling.dense.quality_targets import person_centers


@pytest.mark.parametrize("dataset", ["coco", "crowdpose"])
def test_targets_equal_the_reference(dataset, quality, dense_arrays, assert_close_to):
    arrays = dense_arrays("quality_targets")
    prefix = f"{dataset}_"
    targets, masks = quality.targets_and_masks(arrays, prefix)
    assert (targets.owners.numpy() == arrays[f"{prefix}owner"]).all()
    for index in range(len(masks)):
        expected = arrays[f"{prefix}gt{index}_centres"]
        persons = quality.persons_of(arrays, index, prefix)
        centers, present = person_centers(persons, quality.MIN_AREA[persons.labeled.shape[1]])
        assert (present.numpy() == expected[:, 2].astype(bool)).all()
        assert_close_to(centers[present], expected[expected[:, 2] > 0, :2], 1e-5)


@pytest.mark.parametrize("reduction", ["omega", "pixel"])
@pytest.mark.parametrize("label", ["cir", "gaussian", "discrete"])
@pytest.mark.parametrize("dataset", ["coco", "crowdpose"])
def test_losses_of_given_maps_equal_the_reference(
    dataset, label, reduction, quality, dense_arrays, assert_close_to
):
    arrays = dense_arrays("quality_targets")
    prefix = f"{dataset}_"
    targets, masks = quality.targets_and_masks(arrays, prefix)
    scores, displacements = (
        torch.from_numpy(arrays[prefix + name]) for name in ("score", "displacement")
    )
    maps = QualityMaps(scores, None, displacements, None, displacements)
    offsets = targets.cells.read(displacements).unflatten(1, (-1, 2))
    poses = targets.cells.positions[:, None] + offsets
    for scale_norm, name in ((True, "scale"), (False, "noscale")):
        criterion = QualityCriterion(
            sigmas=quality.SKELETONS[poses.shape[1]].sigmas,
            instance_label=label,
            cir_reduction=reduction,
            scale_norm=scale_norm,
        )
        normalizers = criterion.normalizers(targets, quality.image_sizes(masks))
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
def test_poses_of_given_maps_equal_the_reference(
    dataset, view, quality, dense_arrays, assert_close_to
):
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
    quality.assert_readout_equals(arrays, view, scores, readers, assert_close_to, tolerance=1e-5)
