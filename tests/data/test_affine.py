from __future__ import annotations

import importlib.util

import detectron2.data.transforms as T
import numpy as np
import pytest

from querypose.data.affine import AffineTransform, RandomAffineCrop, crop_matrix
from querypose.skeleton import COCO_SKELETON

CASES = range(3)


@pytest.fixture(scope="module")
def reference(repository):
    with np.load(repository / "tests" / "golden" / "dense" / "affine.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def filler(repository):
    path = repository / "tests" / "golden" / "filler.py"
    spec = importlib.util.spec_from_file_location("filler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def crop_of_case(reference, case) -> AffineTransform:
    zoom, degrees, *shift = reference[f"{case}_u_rot_dx_dy"]
    size_wh, out = reference[f"{case}_size_wh"], int(reference[f"{case}_crop"])
    matrix = crop_matrix(size_wh / 2 + shift, size_wh.min() * zoom, degrees, out)
    return AffineTransform(matrix, (out, out))


@pytest.mark.parametrize("case", CASES)
def test_matrix_and_area_equal_the_reference(reference, case):
    crop = crop_of_case(reference, case)
    np.testing.assert_allclose(crop.matrix, reference[f"{case}_matrix"], atol=1e-6)
    np.testing.assert_allclose(crop.area_factor, reference[f"{case}_area_factor"], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_keypoints_and_their_flip_equal_the_reference(reference, case):
    crop, out = crop_of_case(reference, case), int(reference[f"{case}_crop"])
    keypoints = reference[f"{case}_keypoints"]
    labeled = keypoints[..., 2] > 0
    places = crop.apply_coords(keypoints[..., :2].reshape(-1, 2)).reshape(-1, 17, 2)
    expected = reference[f"{case}_crop_keypoints"]
    np.testing.assert_allclose(places[labeled], expected[labeled][:, :2], atol=1e-4)
    flipped = T.HFlipTransform(out).apply_coords(places.reshape(-1, 2)).reshape(-1, 17, 2)
    swap = list(COCO_SKELETON.flip_indices)
    expected = reference[f"{case}_flipped_keypoints"]
    np.testing.assert_allclose(
        flipped[:, swap][labeled[:, swap]], expected[labeled[:, swap]][:, :2], atol=1e-4
    )


@pytest.mark.parametrize("case", CASES)
def test_image_and_mask_equal_the_reference(reference, filler, case):
    crop, (width, height) = crop_of_case(reference, case), reference[f"{case}_size_wh"]
    image = filler.image(height, width, int(reference[f"{case}_picture_seed"]))
    image = image.permute(1, 2, 0).round().byte().numpy()
    difference = crop.apply_image(image).astype(int) - reference[f"{case}_crop_picture"]
    assert abs(difference).max() <= 2
    mask = crop.apply_image(255 * reference[f"{case}_mask"])[::4, ::4] > 127
    assert (mask == reference[f"{case}_crop_mask"]).mean() >= 0.98


def test_labels_are_not_mixed():
    crop = AffineTransform(crop_matrix(np.array([4.0, 4.0]), 8, 45, 32), (32, 32))
    labels = np.array([[0, 7], [7, 0]], dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    assert set(np.unique(crop.apply_segmentation(labels))) == {0, 7}


def test_a_pixel_moves_with_its_coordinates():
    image = np.zeros((60, 80), dtype=np.uint8)
    image[20, 50] = 255
    crop = AffineTransform(crop_matrix(np.array([45.0, 25.0]), 40, 30, 160), (160, 160))
    row, column = np.unravel_index(crop.apply_image(image).argmax(), (160, 160))
    ((x, y),) = crop.apply_coords(np.array([[50.5, 20.5]]))
    assert abs(x - column - 0.5) <= 1 and abs(y - row - 0.5) <= 1


def test_random_crops_stay_within_their_ranges():
    np.random.seed(0)
    augmentation = RandomAffineCrop(size=64, zoom=(0.75, 1.5), degrees=30, shift=0.2)
    image = np.zeros((100, 140, 3), dtype=np.uint8)
    crops = [augmentation.get_transform(image) for _ in range(300)]
    assert {crop.size for crop in crops} == {(64, 64)}
    sides = np.array([64 / crop.area_factor**0.5 for crop in crops])
    angles = np.array(
        [np.rad2deg(np.arctan2(crop.matrix[0, 1], crop.matrix[0, 0])) for crop in crops]
    )
    inverse = [np.linalg.inv(np.vstack([crop.matrix, [0, 0, 1]])) for crop in crops]
    centers = np.array([(matrix @ [32, 32, 1])[:2] for matrix in inverse])
    shifts = (centers - [70, 50]) / sides[:, None]
    for values, low, high in ((sides, 75, 150), (angles, -30, 30), (shifts, -0.2, 0.2)):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < values.max() <= high
