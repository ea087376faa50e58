from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from querypose.config import default_config
from querypose.data import PoseAffineMapper, build_train_mapper
from querypose.data.ignore_mask import unlabeled_regions
from querypose.skeleton import COCO_SKELETON

NAME = "affine_mapper_test"
WIDTH, HEIGHT = 120, 90


@pytest.fixture
def make_mapper():
    MetadataCatalog.get(NAME).set(**COCO_SKELETON.metadata())

    def make(**changes):
        cfg = default_config()
        cfg.INPUT.MAPPER = "PoseAffineMapper"
        cfg.INPUT.FORMAT = "RGB"
        cfg.INPUT.RANDOM_FLIP = "none"
        cfg.INPUT.AFFINE.SIZE = 96
        cfg.DATASETS.TRAIN = (NAME,)
        for key, value in changes.items():
            cfg.merge_from_list([key.replace("__", "."), value])
        return build_train_mapper(cfg)

    yield make
    MetadataCatalog.remove(NAME)
    assert NAME not in DatasetCatalog


# No zoom, rotation or shift: the crop is the image's middle 90 x 90, and 96 / 90 as large.
STILL = {
    "INPUT__AFFINE__ZOOM": [1.0, 1.0],
    "INPUT__AFFINE__DEGREES": 0.0,
    "INPUT__AFFINE__SHIFT": 0.0,
}
SCALE = 96 / 90


@pytest.fixture
def image_file(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    return str(path)


def person(**changes):
    keypoints = np.zeros((17, 3))
    keypoints[:3] = [[30.5, 40.5, 2], [2.5, 10.5, 1], [60.5, 60.5, 2]]
    annotation = {
        "bbox": [20.0, 30.0, 45.0, 40.0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
        "area": 900.0,
        "keypoints": keypoints.flatten().tolist(),
    }
    return annotation | changes


def record(image_file, *annotations):
    return {
        "file_name": image_file,
        "width": WIDTH,
        "height": HEIGHT,
        "annotations": list(annotations),
    }


def test_keypoints_outside_the_crop_stay_labeled(make_mapper, image_file):
    mapped = make_mapper(**STILL)(record(image_file, person()))
    assert mapped["image"].shape == (3, 96, 96) and mapped["image"].dtype == torch.uint8
    keypoints = mapped["instances"].gt_keypoints.tensor[0]
    # x: (index - 60) * scale + 48, then half a pixel on.
    expected = [
        [(30 - 60) * SCALE + 48.5, (40 - 45) * SCALE + 48.5, 2],
        [(2 - 60) * SCALE + 48.5, (10 - 45) * SCALE + 48.5, 1],
        [(60 - 60) * SCALE + 48.5, (60 - 45) * SCALE + 48.5, 2],
    ]
    torch.testing.assert_close(keypoints[:3], torch.tensor(expected))
    assert keypoints[1, 0] < 0
    assert not keypoints[3:].any()


def test_areas_scale_with_the_crop(make_mapper, image_file):
    without_area = person()
    del without_area["area"]
    mapped = make_mapper(**STILL)(record(image_file, person(), without_area))
    instances = mapped["instances"]
    factor = SCALE**2
    torch.testing.assert_close(
        instances.gt_areas, torch.tensor([900 * factor, 0.53 * 1800 * factor])
    )
    torch.testing.assert_close(instances.gt_box_areas, torch.tensor([1800 * factor] * 2))


def test_a_flip_mirrors_image_mask_and_keypoints_and_swaps_sides(make_mapper, image_file):
    crowd = person(iscrowd=1, bbox=[20.0, 30.0, 16.0, 20.0])
    sample = record(image_file, person(), crowd)
    plain = make_mapper(**STILL)(sample)
    flipping = make_mapper(**STILL)
    flipping.geometric.augs[1].prob = 1.0
    flipped = flipping(sample)
    assert torch.equal(flipped["image"], plain["image"].flip(-1))
    keypoints = plain["instances"].gt_keypoints.tensor[0]
    mirrored = keypoints * torch.tensor([-1, 1, 1]) + torch.tensor([96.0, 0, 0])
    mirrored[3:] = 0
    swapped = mirrored[list(COCO_SKELETON.flip_indices)]
    torch.testing.assert_close(flipped["instances"].gt_keypoints.tensor[0], swapped)
    # Cells lie on pixels 0, 4, ...: on 3, 7, ... of the mirrored ones, which are other pixels.
    assert 0 < (flipped["ignore_mask"] == 0).sum() < 96 * 96 / 32
    assert abs((flipped["ignore_mask"] == 0).sum() - (plain["ignore_mask"] == 0).sum()) <= 9


def test_crowds_and_unlabeled_persons_are_ignored(make_mapper, image_file):
    crowd = person(iscrowd=1, bbox=[30.0, 10.0, 20.0, 20.0])
    unlabeled = person(keypoints=[0.0] * 51, bbox=[70.0, 50.0, 20.0, 20.0])
    sample = record(image_file, person(), crowd, unlabeled)
    mapped = make_mapper(**STILL)(sample)
    assert len(mapped["instances"]) == 1
    mask = mapped["ignore_mask"]
    assert mask.shape == (24, 24) and set(mask.unique().tolist()) == {0.0, 1.0}
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    x, y = ((index * 4 - 48) / SCALE + half for index, half in ((columns, 60), (rows, 45)))
    inside = ((x >= 30) & (x < 50) & (y >= 10) & (y < 30)) | (
        (x >= 70) & (x < 90) & (y >= 50) & (y < 70)
    )
    assert ((mask == 0) == inside).float().mean() > 0.97
    kept = make_mapper(**STILL, INPUT__AFFINE__IGNORE_REGIONS=False)(sample)
    assert kept["ignore_mask"].all()


def test_what_lies_outside_the_image_is_black_and_ignored(make_mapper, image_file):
    mapped = make_mapper(**STILL | {"INPUT__AFFINE__ZOOM": [2.0, 2.0]})(record(image_file))
    assert len(mapped["instances"]) == 0
    assert mapped["instances"].gt_keypoints.tensor.shape == (0, 17, 3)
    assert not mapped["image"][:, :20].any()
    assert not mapped["ignore_mask"][:5].any() and mapped["ignore_mask"][8:16, 8:16].all()


def test_color_changes_leave_geometry_alone(make_mapper, image_file):
    np.random.seed(1)
    sample = record(image_file, person())
    plain = make_mapper(**STILL)(sample)
    colored = make_mapper(**STILL, INPUT__COLOR_JITTER=0.4, INPUT__LIGHTING=0.1)(sample)
    assert not torch.equal(plain["image"], colored["image"])
    assert torch.equal(
        plain["instances"].gt_keypoints.tensor, colored["instances"].gt_keypoints.tensor
    )
    assert torch.equal(plain["ignore_mask"], colored["ignore_mask"])


def rle_of(mask):
    flat = mask.flatten(order="F").astype(int)
    changes = [*np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist(), flat.size]
    return {"counts": np.diff([0, *changes]).tolist(), "size": list(mask.shape)}


def test_regions_follow_polygons_and_runs():
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[10:30, 20:60] = True
    polygon = [[20.0, 10, 60, 10, 60, 30, 20, 30]]
    for segmentation in (polygon, rle_of(expected)):
        crowd = person(iscrowd=1, segmentation=segmentation)
        regions = unlabeled_regions([crowd, person()], (HEIGHT, WIDTH), "image")
        assert (regions == expected).all()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"counts": [4, 4], "size": [4, 2]}, "an image of 2 x 4, but the image has 120 x 90"),
        ({"size": [HEIGHT, WIDTH]}, "a segmentation is broken"),
        ([["x"] * 8], "a segmentation is broken"),
    ],
)
def test_broken_segmentations_are_named(segmentation, message):
    crowd = person(iscrowd=1, segmentation=segmentation)
    with pytest.raises(ValueError, match=f"photo.jpg: .*{message}"):
        unlabeled_regions([crowd], (HEIGHT, WIDTH), "photo.jpg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"INPUT__AFFINE__SIZE": 100}, "INPUT.AFFINE.SIZE must be a multiple of 32, got 100"),
        ({"INPUT__AFFINE__ZOOM": [1.5, 0.7]}, "INPUT.AFFINE.ZOOM must be"),
        ({"INPUT__LIGHTING": -0.1}, "INPUT.LIGHTING must not be negative"),
        ({"INPUT__RANDOM_FLIP": "vertical"}, "INPUT.RANDOM_FLIP is 'vertical', but this mapper"),
        ({"INPUT__MAPPER": "AffineMapper"}, "INPUT.MAPPER must be one of PoseAffineMapper, Query"),
    ],
)
def test_senseless_options_are_named(make_mapper, changes, message):
    with pytest.raises(ValueError, match=message):
        make_mapper(**changes)


def test_keypoints_of_another_skeleton_are_named(make_mapper, image_file):
    mapper = make_mapper()
    assert isinstance(mapper, PoseAffineMapper)
    with pytest.raises(ValueError, match=r"image.png: a person has 42 .* not 3 x 17"):
        mapper(record(image_file, person(keypoints=[1.0] * 42)))


def test_a_second_category_is_named(make_mapper, image_file):
    with pytest.raises(ValueError, match=r"image.png: a person has category 1, but"):
        make_mapper()(record(image_file, person(category_id=1)))
