from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from querypose import PosePredictor, model_zoo
from querypose.cli.demo import main as draw
from querypose.data.image import read_image
from querypose.engine import QueryPoseTrainer
from querypose.synthetic import register_synthetic_people

UNSEEN = "synthetic_people_unseen_by_the_zoo"
NUM_IMAGES = 24


@pytest.fixture(scope="module")
def unseen():
    """Generated people of a seed that no training used."""
    if UNSEEN not in DatasetCatalog.list():
        register_synthetic_people(UNSEEN, num_images=NUM_IMAGES, seed=77)
    return DatasetCatalog.get(UNSEEN)


@pytest.fixture(scope="module")
def predict():
    return PosePredictor(confidence_threshold=0)


def test_weights_are_stored_in_half_precision():
    assert model_zoo.DEFAULT_MODEL in model_zoo.model_names()
    for name in model_zoo.model_names():
        weights = torch.load(model_zoo.get_config(name).MODEL.WEIGHTS, weights_only=True)["model"]
        floats = [value for value in weights.values() if value.is_floating_point()]
        assert {value.dtype for value in floats} == {torch.float16}


def test_a_model_that_does_not_come_with_the_package_is_refused():
    with pytest.raises(FileNotFoundError, match=r"config file lite9\. Did you mean lite0\?"):
        model_zoo.get_config("lite9")


def test_the_packaged_model_finds_unseen_people(predict, unseen, tmp_path):
    cfg = model_zoo.get_config()
    cfg.merge_from_list(["DATASETS.TEST", (UNSEEN,), "OUTPUT_DIR", str(tmp_path)])
    results = QueryPoseTrainer.test(cfg, predict.model)
    assert results["bbox"]["AP"] > 40
    assert results["keypoints"]["AP"] > 27


def test_the_default_predictor_is_that_of_the_packaged_config(predict, unseen):
    image = read_image(unseen[0]["file_name"], "RGB")
    found = predict(image)
    expected = PosePredictor.from_config(model_zoo.get_config(), confidence_threshold=0)(image)
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)


def test_the_demo_needs_no_config(unseen, tmp_path):
    file, drawn = tmp_path / "image.png", tmp_path / "drawn.png"
    image = read_image(unseen[0]["file_name"], "RGB")
    Image.fromarray(image).save(file)
    assert draw([str(file), "--output", str(drawn)]) == 0
    assert (np.asarray(Image.open(drawn)) != image).any()
