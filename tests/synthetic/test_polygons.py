import cv2
import numpy as np
import pytest

from querypose.synthetic.polygons import capsule_polygons


def test_capsule_touches_both_discs():
    polygon = capsule_polygons(
        np.array([[0.0, 0.0]]), np.array([2.0]), np.array([[10.0, 0.0]]), np.array([1.0])
    )[0]
    assert polygon[:, 0].min() == pytest.approx(-2.0)
    assert polygon[:, 0].max() == pytest.approx(11.0)
    # The tangent points of a tapered capsule: radius times (cos, sin) of acos((2 - 1) / 10).
    height = np.sqrt(1 - 0.1**2)
    for corner in ((0.2, 2 * height), (10.1, height), (0.2, -2 * height), (10.1, -height)):
        assert np.abs(polygon - corner).sum(axis=1).min() < 1e-9


def test_capsule_of_nested_discs_is_the_larger_disc():
    polygon = capsule_polygons(
        np.array([[0.0, 0.0]]), np.array([5.0]), np.array([[1.0, 0.0]]), np.array([1.0])
    )[0]
    assert np.hypot(*polygon.T).max() == pytest.approx(5.0)
    assert cv2.contourArea(polygon.astype(np.float32)) > 0.8 * np.pi * 25
