from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
import pytest

from querypose.config import read_config
from querypose.data.augmentation import (
    PersonRotationTransform,
    RandomAspectRatio,
    RandomErasing,
    build_crop_augmentations,
    build_train_augmentations,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (120, 200, 3), dtype=np.uint8)


@pytest.fixture
def augmented(repository):
    """``augmented("INPUT.COLOR_JITTER", 0.2)``: an image's AugInput and its transforms."""

    def apply(*opts, seed=0):
        cfg = read_config(repository / "configs" / "Base-QueryPose.yaml", opts)
        augmented_input = T.AugInput(IMAGE.copy())
        np.random.seed(seed)
        transforms = T.AugmentationList(build_train_augmentations(cfg))(augmented_input)
        return augmented_input.image, transforms

    return apply


def outline(box, count=360):
    """Points on the ellipse in a box."""
    angle = np.linspace(0, 2 * np.pi, count)
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return center + half * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.mark.parametrize("angle", [-170, -30, 7, 45, 90])
def test_rotated_box_encloses_the_ellipse_in_it(angle):
    transform = PersonRotationTransform(120, 200, angle, expand=False)
    box = np.array([50.0, 20.0, 90.0, 110.0])
    points = transform.apply_coords(outline(box))
    expected = np.concatenate([points.min(axis=0), points.max(axis=0)])
    np.testing.assert_allclose(transform.apply_box(box[None])[0], expected, atol=0.02)
    assert transform.apply_box(np.zeros((0, 4))).shape == (0, 4)


def test_a_quarter_turn_is_exact():
    transform = PersonRotationTransform(100, 100, 90, expand=False)
    rotated = transform.apply_box([[10, 20, 30, 60]])
    np.testing.assert_allclose(rotated, [[20, 70, 60, 90]], atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_scale_jitter_fits_its_size(augmented, seed):
    jitter = ("INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.SIZE", "(64, 96)")
    image, _ = augmented(*jitter, "INPUT.SCALE_JITTER.RANGE", "(0.5, 3.0)", seed=seed)
    height, width = image.shape[:2]
    assert 28 <= height <= 64 and 46 <= width <= 96
    smaller, _ = augmented(*jitter, "INPUT.SCALE_JITTER.RANGE", "(0.5, 0.5)", seed=seed)
    # What fits is not padded.
    assert smaller.shape[:2] == (29, 48)


def test_keypoints_move_with_the_image(augmented):
    opts = ("INPUT.ROTATION.PROBABILITY", 1.0, "INPUT.RANDOM_FLIP", "none")
    opts += ("INPUT.MIN_SIZE_TRAIN", "(120,)")
    image, transforms = augmented(*opts)
    center = transforms.apply_coords(np.array([[100.0, 60.0]]))
    np.testing.assert_allclose(center, [[100, 60]])
    corner = transforms.apply_coords(np.array([[0.0, 0.0]]))
    assert np.abs(corner).max() > 1
    assert np.hypot(*(corner[0] - [100, 60])) == pytest.approx(np.hypot(100, 60))
    assert image.shape == IMAGE.shape


def test_colors_change_within_their_range(augmented):
    opts = ("INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TRAIN", "(120,)")
    plain, _ = augmented(*opts)
    changed, transforms = augmented(*opts, "INPUT.COLOR_JITTER", 0.2)
    assert (plain == IMAGE).all() and (changed != IMAGE).any()
    assert abs(changed.astype(float).mean() / IMAGE.mean() - 1) < 0.45
    assert (transforms.apply_coords(np.array([[3.0, 4.0]])) == [[3, 4]]).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_aspect_ratio_changes_within_its_range(augmented, seed):
    opts = ("INPUT.RANDOM_FLIP", "none", "INPUT.SCALE_JITTER.ENABLED", True)
    opts += ("INPUT.SCALE_JITTER.SIZE", "(400, 400)", "INPUT.SCALE_JITTER.RANGE", "(1.0, 1.0)")
    image, transforms = augmented(*opts, "INPUT.ASPECT_JITTER", 0.25, seed=seed)
    height, width = image.shape[:2]
    assert 0.79 < (width / height) / (200 / 120) < 1.26 and width / height != 200 / 120
    corner = transforms.apply_coords(np.array([[200.0, 120.0]]))
    np.testing.assert_allclose(corner, [[width, height]], atol=0.5)


def test_an_image_of_one_row_keeps_it():
    for seed in range(10):
        np.random.seed(seed)
        transform = RandomAspectRatio(1.0).get_transform(np.zeros((1, 500, 3), np.uint8))
        assert transform.apply_image(np.zeros((1, 500, 3), np.uint8)).shape[0] >= 1


def test_erasing_paints_rectangles_and_moves_nothing():
    fractions = []
    for seed in range(20):
        np.random.seed(seed)
        transform = RandomErasing(count=1, area=(0.1, 0.2)).get_transform(IMAGE)
        image = transform.apply_image(IMAGE)
        changed = (image != IMAGE).any(axis=-1)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        rectangle = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (rectangle == rectangle[0, 0]).all()
        fractions.append(rectangle[..., 0].size / IMAGE[..., 0].size)
        assert (transform.apply_coords(np.array([[3.0, 4.0]])) == [[3, 4]]).all()
        assert (transform.apply_box(np.array([[1.0, 2, 3, 4]])) == [[1, 2, 3, 4]]).all()
    # At an edge only a part of it is within the image.
    assert max(fractions) <= 0.21 and np.median(fractions) > 0.06


def test_erasing_is_done_where_it_is_asked_for(augmented):
    opts = ("INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TRAIN", "(120,)")
    image, _ = augmented(*opts, "INPUT.ERASING.PROBABILITY", 1.0)
    assert (image != IMAGE).any()


def test_the_image_that_is_erased_stays_as_it_was():
    image = IMAGE.copy()
    erased = RandomErasing(3, (0.1, 0.2)).get_transform(image).apply_image(image)
    assert (image == IMAGE).all() and (erased != IMAGE).any()


def test_all_is_off_by_default(repository):
    cfg = read_config(repository / "configs" / "Base-QueryPose.yaml", ["INPUT.CROP.ENABLED", False])
    kinds = [type(augmentation).__name__ for augmentation in build_train_augmentations(cfg)]
    assert kinds == ["ResizeShortestEdge", "RandomFlip"]
    assert build_crop_augmentations(cfg) == []


@pytest.mark.parametrize(
    "opts",
    [
        ("INPUT.COLOR_JITTER", 1.5),
        ("INPUT.ROTATION.PROBABILITY", -0.5),
        ("INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.RANGE", "(2.0, 1.0)"),
        ("INPUT.ASPECT_JITTER", -0.1),
        ("INPUT.ERASING.PROBABILITY", 1.5),
    ],
)
def test_nonsense_is_named(augmented, opts):
    with pytest.raises(ValueError, match=rf"{opts[-2]} must"):
        augmented(*opts)
