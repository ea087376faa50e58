from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Instances, Keypoints

from querypose.modeling.dense.cells import is_in_map
from querypose.modeling.dense.part_layout import part_layout
from querypose.modeling.dense.part_targets import PartTargetBuilder, PartTargets
from querypose.modeling.dense.persons import LabeledPersons
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

GOLDEN = [
    ("pinet_train", COCO_SKELETON, 1024.0, 3),
    ("pinet_train_crowdpose", CROWDPOSE_SKELETON, 0.0, 1),
]


def labeled_persons(keypoints, box_areas, image_size) -> LabeledPersons:
    instances = Instances(
        image_size,
        gt_keypoints=Keypoints(torch.as_tensor(keypoints)),
        gt_box_areas=torch.as_tensor(box_areas),
    )
    return LabeledPersons.from_instances(
        instances,
        num_keypoints=instances.gt_keypoints.tensor.shape[1],
        area_field="gt_box_areas",
        device=torch.device("cpu"),
    )


@pytest.fixture
def make_builder():
    def make(skeleton=COCO_SKELETON, min_area=0.0, nearest_cells=False, parts=()):
        layout = part_layout(skeleton, parts)
        return PartTargetBuilder(
            parts=layout.parts,
            center_only=layout.center_only,
            nearest_cells=nearest_cells,
            min_area=min_area,
        )

    return make


@pytest.fixture(params=GOLDEN, ids=lambda case: case[0])
def reference(request, dense_arrays, make_builder):
    """A golden batch: its arrays, persons, ignore masks and a way to make a builder."""
    name, skeleton, min_area, num_images = request.param
    arrays = dense_arrays(name)
    masks = [torch.from_numpy(arrays[f"gt{i}_ignore"]) for i in range(num_images)]
    size = tuple(4 * length for length in masks[0].shape)
    persons = [
        labeled_persons(arrays[f"gt{i}_keypoints"], arrays[f"gt{i}_box_area"], size)
        for i in range(num_images)
    ]

    def build(**options):
        return make_builder(skeleton, min_area, **options)

    return arrays, persons, torch.stack(masks), build


def test_maps_and_their_weights_equal_the_reference(reference, assert_close_to):
    arrays, persons, masks, build = reference
    targets = build()(persons, tuple(masks.shape[1:]), masks)
    for i in range(len(persons)):
        expected = np.concatenate([arrays[f"target{i}_H"], arrays[f"target{i}_P"]])
        assert_close_to(targets.maps[i], expected, 1e-5)
        weights = [arrays[f"target{i}_H_weight"], arrays[f"target{i}_P_weight"]]
        assert_close_to(targets.weights[i], np.concatenate(weights), 1e-5)


@pytest.mark.parametrize(("prefix", "nearest_cells"), [("target", False), ("target9_", True)])
def test_owners_and_offsets_equal_the_reference(reference, assert_close_to, prefix, nearest_cells):
    arrays, persons, masks, build = reference
    builder, size = build(nearest_cells=nearest_cells), tuple(masks.shape[1:])
    targets = builder(persons, size, masks)
    offsets, weights = dense_offsets(targets, len(builder.parts))
    for i, image_persons in enumerate(persons):
        owners = builder.owners(image_persons, *builder.part_centers(image_persons), size)
        assert (owners.numpy() == arrays[f"{prefix}{i}_owner"]).all()
        assert_close_to(weights[i], arrays[f"{prefix}{i}_S"], 1e-5)
        expected = arrays[f"{prefix}{i}_O"]
        assert_close_to(offsets[i] * (weights[i] > 0), expected, 1e-5)


def dense_offsets(targets: PartTargets, num_parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets and their weights at the owned cells as maps, (B, P * 2K, H, W) each."""
    batch, _, height, width = targets.maps.shape
    shape = (batch, num_parts, *targets.offsets.shape[1:], height, width)
    offsets, weights = torch.zeros(shape), torch.zeros(shape)
    images, parts, rows, columns = targets.cells
    offsets[images, parts, :, :, rows, columns] = targets.offsets
    weights[images, parts, :, :, rows, columns] = targets.offset_weights.expand_as(targets.offsets)
    return offsets.flatten(1, 3), weights.flatten(1, 3)


def test_part_centers_equal_the_reference(reference):
    arrays, persons, _, build = reference
    for i, image_persons in enumerate(persons):
        centers, present = build().part_centers(image_persons)
        expected = arrays[f"target{i}_part_centres"]
        known, expected = torch.tensor(expected[..., 2] > 0), torch.tensor(expected[..., :2])
        # The reference also tells of centers beyond the map.
        assert torch.equal(present, known & is_in_map(expected, image_persons.size))
        torch.testing.assert_close(centers[known], expected[known])


def test_the_best_cells_equal_the_reference(reference):
    arrays, persons, masks, build = reference
    targets = build()(persons, tuple(masks.shape[1:]), masks)
    chosen = targets.cells.select(targets.best_of_parts(40))
    assert (torch.stack(chosen, dim=1).numpy() == arrays["pr_cells"]).all()


def one_person(center, size=(64, 64), num_keypoints=17):
    """A person whose keypoints are all at one place, in cells."""
    keypoints = torch.full((1, num_keypoints, 3), 2.0)
    keypoints[..., :2] = 4 * torch.tensor(center) + 0.5
    return labeled_persons(keypoints, [400.0], (4 * size[0], 4 * size[1]))


@pytest.mark.parametrize(
    ("options", "center", "columns"),
    [
        ({}, (20.0, 30.0), range(18, 22)),
        ({}, (20.9, 30.0), range(18, 22)),
        ({"nearest_cells": True}, (20.4, 30.0), range(19, 22)),
        ({"nearest_cells": True}, (20.5, 30.0), range(20, 23)),
        ({"parts": [COCO_SKELETON.keypoints]}, (20.0, 30.0), range(16, 24)),
    ],
)
def test_which_cells_propose_a_pose(make_builder, options, center, columns):
    builder, persons = make_builder(**options), one_person(center)
    owners = builder.owners(persons, *builder.part_centers(persons), (64, 64))
    for part_owners in owners:
        assert (part_owners == 0).any(dim=0).nonzero().flatten().tolist() == list(columns)
        assert (part_owners == 0).sum() == len(columns) ** 2


def test_a_lone_center_has_a_wider_gaussian(make_builder):
    persons, masks = [one_person((20.0, 30.0))], torch.ones(1, 64, 64)
    parts = make_builder()(persons, (64, 64), masks).maps[0, -1]
    whole = make_builder(parts=[COCO_SKELETON.keypoints])(persons, (64, 64), masks).maps[0, -1]
    assert parts[30, 22] == pytest.approx(np.exp(-0.5))
    assert whole[30, 24] == pytest.approx(np.exp(-0.5))


def test_the_smaller_person_owns_shared_cells_in_any_order(make_builder):
    keypoints = torch.full((2, 17, 3), 2.0)
    keypoints[0, :, :2] = 4 * torch.tensor([20.0, 30.0]) + 0.5
    keypoints[1, :, :2] = 4 * torch.tensor([22.0, 30.0]) + 0.5
    builder = make_builder()
    for order, smaller in (([0, 1], 0), ([1, 0], 1)):
        areas = torch.tensor([400.0, 900.0])[order]
        persons = labeled_persons(keypoints[order], areas, (256, 256))
        owners = builder.owners(persons, *builder.part_centers(persons), (64, 64))
        assert (owners[:, 30, 20] == smaller).all()
        assert (owners[:, 30, 23] == 1 - smaller).all()


def test_offsets_and_weights_of_one_cell(make_builder):
    persons = one_person((20.25, 30.0))
    targets = make_builder()([persons], (64, 64), torch.ones(1, 64, 64))
    here = (targets.cells.rows == 31) & (targets.cells.columns == 19)
    torch.testing.assert_close(targets.offsets[here][0, 0], torch.tensor([1.25, -1.0]))
    assert targets.offset_weights[here].unique().item() == pytest.approx(1 / 20)


def test_a_person_beyond_the_map_owns_nothing(make_builder):
    inside = torch.full((1, 17, 3), 2.0)
    inside[0, ::2, :2] = torch.tensor([-40.0, 80.0])
    inside[0, 1::2, :2] = torch.tensor([200.0, 80.0])
    persons = labeled_persons(inside, [900.0], (160, 160))
    targets = make_builder()([persons], (40, 40), torch.ones(1, 40, 40))
    assert len(targets.offsets) == 0
    assert not targets.maps[:, :17].any() and targets.maps[:, 17:].any()


def test_masked_cells_have_no_weight(make_builder):
    masks = torch.ones(1, 64, 64)
    masks[:, :, 20:] = 0
    targets = make_builder()([one_person((20.0, 30.0))], (64, 64), masks)
    assert not targets.weights[..., 20:].any()
    assert set(targets.weights[..., :20].unique().tolist()) == {np.float32(0.1), 1.0}


def test_images_without_persons(make_builder):
    empty = labeled_persons(torch.zeros(0, 17, 3), [], (64, 64))
    targets = make_builder()([empty, empty], (16, 16), torch.ones(2, 16, 16))
    assert not targets.maps.any()
    assert len(targets.offsets) == len(targets.best_of_parts(40)) == 0


def test_an_image_has_the_same_targets_in_any_batch(make_builder):
    first, second = one_person((20.0, 30.0)), one_person((41.5, 10.0))
    builder, masks = make_builder(), torch.ones(2, 64, 64)
    alone, both = builder([second], (64, 64), masks[:1]), builder([first, second], (64, 64), masks)
    assert torch.equal(alone.maps[0], both.maps[1])
    second_cells = both.cells.images == 1
    assert torch.equal(alone.offsets, both.offsets[second_cells])
    assert torch.equal(alone.cells.rows, both.cells.rows[second_cells])


def test_images_do_not_change_the_targets_of_others(make_builder):
    """A smaller image is padded to the size of the batch."""
    points = np.full((1, 17, 3), 2.0, np.float32)
    points[0, :, 0], points[0, :, 1] = 59.0, np.linspace(8, 56, 17)
    small = labeled_persons(points, np.array([2000.0], np.float32), (64, 64))
    wide = labeled_persons(points[:0], np.zeros(0, np.float32), (64, 96))
    alone = make_builder()([small], (16, 16), torch.ones(1, 16, 16))
    beside = make_builder()([small, wide], (16, 24), torch.ones(2, 16, 24))
    assert [values.tolist() for values in beside.cells] == [
        values.tolist() for values in alone.cells
    ]
    assert torch.equal(beside.offsets, alone.offsets)
