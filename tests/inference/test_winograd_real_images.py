"""Winograd's convolutions change no answer for real images."""

from __future__ import annotations

import numpy as np
import pytest

from querypose import PosePredictor
from querypose.data.image import read_image

NUM_IMAGES = 50


@pytest.mark.slow
def test_same_people_with_and_without(real_data):
    files = sorted((real_data / "coco_person" / "val").glob("*.jpg"))[:NUM_IMAGES]
    assert len(files) == NUM_IMAGES
    fast, plain = (
        PosePredictor.from_config("lite0", opts=["MODEL.INFERENCE.WINOGRAD_MEMORY", share])
        for share in (1.5, 0.0)
    )
    num_people = 0
    for file in files:
        image = read_image(str(file), "RGB")
        found, expected = fast(image), plain(image)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.keypoints, expected.keypoints, rtol=0, atol=1e-2)
        num_people += len(found)
    assert num_people > NUM_IMAGES
