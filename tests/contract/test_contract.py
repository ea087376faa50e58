"""A pose model of a few lines goes through all of the machinery, which knows none by name."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from querypose import PosePredictor
from querypose.checkpoint import QueryPoseCheckpointer
from querypose.cli.demo import main as demo
from querypose.engine import QueryPoseTrainer
from querypose.inference.tta import PoseModelWithTTA
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import Workload

SCRIPT = Path(__file__).parent / "one_person.py"


def _load_script():
    spec = importlib.util.spec_from_file_location("one_person", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


one_person = _load_script()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The trainer after two iterations, each of one batch of four images."""
    return one_person.train(tmp_path_factory.mktemp("one_process"))


@pytest.fixture(scope="module")
def weights(trained):
    return Path(trained.cfg.OUTPUT_DIR, "model_final.pth")


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_predictor(trained, weights, image):
    predictor = PosePredictor.from_config(
        trained.cfg, weights=weights, device="cpu", confidence_threshold=0.0
    )
    prediction = predictor(image)
    assert prediction.keypoints.shape == (1, 17, 3)
    predictor.confidence_threshold = 1.0
    assert len(predictor(image)) == 0
    predictor.confidence_threshold = 0.0
    with pytest.raises(ValueError, match="no part attention"):
        predictor(image, return_attention=True)
    with pytest.raises(ValueError, match="no maps"):
        predictor(image, return_maps=True)


def test_predictor_of_a_checkpoint_that_says_what_it_is(trained, weights, image):
    people = PosePredictor(weights, device="cpu", confidence_threshold=0.0)(image)
    expected = PosePredictor(trained.model.eval(), min_size=64, confidence_threshold=0.0)(image)
    np.testing.assert_allclose(people.keypoints, expected.keypoints, rtol=1e-4)


def test_demo(trained, weights, image, tmp_path):
    config_file = tmp_path / "config.yaml"
    config_file.write_text(trained.cfg.dump())
    Image.fromarray(image).save(tmp_path / "image.png")
    command = [
        *(str(tmp_path / "image.png"), "--config-file", str(config_file)),
        *("--weights", str(weights), "--confidence-threshold", "0"),
        *("--output", str(tmp_path / "drawn.png"), "--save-json", str(tmp_path / "poses.json")),
    ]
    assert demo(command) == 0
    assert (tmp_path / "drawn.png").is_file()
    frames = json.loads((tmp_path / "poses.json").read_text())["frames"]
    assert [len(frame["people"]) for frame in frames] == [1]


def test_evaluation_and_test_time_augmentation(trained):
    cfg = trained.cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = ("synthetic_people_tiny",)
    cfg.TEST.AUG.MIN_SIZES = (64, 96)
    results = QueryPoseTrainer.test(cfg, trained.model)
    assert results["keypoints"]["AP"] >= 0
    augmented = QueryPoseTrainer.test_with_TTA(cfg, trained.model)
    assert augmented["keypoints_TTA"]["AP"] >= 0
    model = PoseModelWithTTA(cfg, trained.model.eval())
    with torch.no_grad():
        (output,) = model([{"image": torch.zeros(3, 64, 96, dtype=torch.uint8)}])
    # One person, or as many as views where they disagree.
    assert 1 <= len(output["instances"]) <= 4


def test_benchmark(trained, tmp_path):
    config_file = tmp_path / "config.yaml"
    config_file.write_text(trained.cfg.dump())
    for train, steps in ((False, set()), (True, {"backward", "optimizer"})):
        setting = Setting(str(config_file), height=64, width=96, people=1, train=train)
        workload = Workload(setting)
        seconds = workload.run()
        assert seconds.keys() == {"backbone", "maps", "total"} | steps
        assert sum(seconds.values()) <= 2 * seconds["total"]
        assert workload.cost().multiply_adds > 0


def test_checkpointer_starts_another_skeleton_afresh(trained, weights, tmp_path, caplog):
    skeleton = tmp_path / "skeleton.yaml"
    skeleton.write_text("keypoints: [head, tail]")
    cfg = one_person.config(tmp_path, "MODEL.SKELETON", str(skeleton))
    model = one_person.OnePerson(cfg)
    fresh = model.maps.weight.detach().clone()
    with pytest.raises(ValueError, match=r"maps\.weight is \(17, .*instead of \(2, "):
        QueryPoseCheckpointer(model).load(str(weights))
    QueryPoseCheckpointer(model, new_heads=True).load(str(weights))
    assert torch.equal(model.maps.weight, fresh)
    expected = trained.model.backbone.state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in model.backbone.state_dict().items())


def test_accumulated_batches_train_as_one(trained, tmp_path):
    accumulated = one_person.train(
        tmp_path, "SOLVER.ACCUMULATE_STEPS", 2, "SOLVER.IMS_PER_BATCH", 2
    )
    _assert_same_parameters(accumulated.model.state_dict(), trained.model.state_dict())


def test_two_processes_of_accumulated_batches_train_as_one(trained, run_in_two_processes, tmp_path):
    run_in_two_processes(SCRIPT, tmp_path)
    shared = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    _assert_same_parameters(shared, trained.model.state_dict())


def _assert_same_parameters(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
