"""demo/ray_data.py on a local Ray."""

from __future__ import annotations

import importlib.util
import os
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from querypose import PosePredictor

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def ray_data(repository, monkeypatch):
    """The example, with a local Ray that takes this machine for one of three processors."""
    ray = pytest.importorskip("ray")
    spec = importlib.util.spec_from_file_location("ray_data", repository / "demo" / "ray_data.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ray_data", module)
    spec.loader.exec_module(module)
    path = os.pathsep.join([str(repository), str(repository / "demo")])
    environment = {"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=3, include_dashboard=False, runtime_env=environment, log_to_driver=False)
    yield module
    ray.shutdown()


@pytest.mark.slow
def test_actors_find_what_one_predictor_finds(ray_data, tmp_path):
    astronaut = Image.fromarray(pytest.importorskip("skimage.data").astronaut())
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        astronaut.rotate(5 * number).save(photos / f"{number}.png")
    lying = Image.Exif()
    lying[ExifTags.Base.Orientation] = 6
    astronaut.transpose(Image.Transpose.ROTATE_90).save(photos / "lying.jpg", exif=lying)
    ray_data.main([str(photos), str(tmp_path / "found"), "--num-actors", "2", "--batch-size", "2"])
    rows = parquet.read_table(tmp_path / "found").to_pylist()
    assert sorted(os.path.basename(row["path"]) for row in rows) == sorted(os.listdir(photos))
    predict = PosePredictor(device="cpu")
    for row in rows:
        alone = predict(photos / os.path.basename(row["path"]))
        assert row["num_people"] == len(alone) > 0
        np.testing.assert_allclose(row["scores"], alone.scores, atol=1e-4)
        np.testing.assert_allclose(row["keypoints"], alone.keypoints, atol=0.05)
    with pytest.raises(ValueError, match="3 actors on 3 processors leave none to read images"):
        ray_data.main([str(photos), str(tmp_path / "never"), "--num-actors", "3"])
