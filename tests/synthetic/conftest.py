"""What the tests of generated people share."""

import numpy as np
import pytest

from querypose.synthetic import SyntheticPeople


@pytest.fixture(scope="session")
def people():
    return SyntheticPeople(num_images=1000, seed=11, image_size=(320, 256))


@pytest.fixture(scope="session")
def keypoints_of():
    """An annotation's (17, 3) keypoints: x, y, v."""
    return lambda annotation: np.array(annotation["keypoints"]).reshape(-1, 3)
