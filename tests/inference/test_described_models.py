"""Models of checkpoints that say what they are, as somebody else's machine sees them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose import PosePredictor
from querypose.cli.demo import main as demo
from querypose.cli.predict import main as predict
from querypose.config import config_from_json, config_to_json, read_config
from querypose.data.datasets.coco import register_configured_datasets
from querypose.engine import QueryPoseTrainer
from querypose.inference.model_loading import find_config, take_skeleton
from querypose.tools.export_weights import export_weights

TINY = Path(__file__).parents[1] / "engine" / "tiny.yaml"
HORSES = "horses_that_are_nowhere_else"


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.fixture
def trained(tmp_path, write_labels, label_content):
    """A training's config and its checkpoint; its dataset is not known any more."""
    content = label_content()
    for row in content["annotations"]:
        row["category_id"] = 18
    content["categories"][0] |= {"id": 18, "name": "horse"}
    labels = write_labels(content)
    cfg = read_config(
        TINY,
        [
            *("DATASETS.REGISTER", [[HORSES, str(labels), str(tmp_path)]]),
            *("DATASETS.TRAIN", (HORSES,), "DATASETS.TEST", (), "INPUT.FORMAT", "BGR"),
            *("OUTPUT_DIR", str(tmp_path / "run"), "DEMO.CONFIDENCE_THRESHOLD", 0.0),
        ],
    )
    register_configured_datasets(cfg)
    Path(cfg.OUTPUT_DIR).mkdir()
    QueryPoseTrainer(cfg).checkpointer.save("model_final")
    labels.unlink()
    DatasetCatalog.remove(HORSES)
    MetadataCatalog.remove(HORSES)
    return cfg, Path(cfg.OUTPUT_DIR, "model_final.pth")


def test_a_predictor_needs_the_checkpoint_alone(trained, image):
    _, weights = trained
    predictor = PosePredictor(weights)
    people = predictor(image)
    assert predictor.skeleton.keypoints[1] == "left_hand"
    assert (predictor.min_size, predictor.image_format) == (64, "BGR")
    assert predictor.category_ids == (18,)
    assert len(people) > 0
    same = PosePredictor.from_config(weights=str(weights))(image)
    np.testing.assert_array_equal(people.keypoints, same.keypoints)
    assert people.to_coco(1) == same.to_coco(1)
    assert people.to_coco(1)[0]["category_id"] == 18


def test_the_demo_needs_the_checkpoint_alone(trained, tmp_path):
    drawn = tmp_path / "drawn.png"
    assert (
        demo([str(tmp_path / "1.png"), "--weights", str(trained[1]), "--output", str(drawn)]) == 0
    )
    assert drawn.is_file()


def test_a_config_takes_the_skeleton_of_the_checkpoint(trained, image):
    """Its dataset is not registered here, and its label file is gone."""
    cfg, weights = trained
    predictor = PosePredictor.from_config(cfg, weights=weights, opts=["INPUT.MIN_SIZE_TEST", 32])
    assert predictor.min_size == 32
    assert predictor(image).keypoints.shape[1:] == (5, 3)


def test_a_config_that_declares_keypoints_holds(trained):
    cfg, weights = trained
    opts = ["DATASETS.REGISTER", [], "DATASETS.TRAIN", ("keypoints_coco_2017_train",)]
    with pytest.raises(ValueError, match=r"is \(5, 2[^;]* instead of \(17, 2"):
        PosePredictor.from_config(cfg, weights=weights, opts=opts)


def test_keypoints_in_another_order_are_refused(trained):
    cfg, weights = trained
    names = find_config(None, weights)[0].MODEL.SKELETON
    swapped = names.replace("left_hand", "x").replace("right_hand", "left_hand")
    with pytest.raises(ValueError, match="in another order than the configured model's"):
        PosePredictor.from_config(
            cfg, weights=weights, opts=["MODEL.SKELETON", swapped.replace("x", "right_hand")]
        )


def test_keypoints_of_other_names_are_a_line_of_the_log(trained, caplog):
    cfg, weights = trained
    renamed = find_config(None, weights)[0].MODEL.SKELETON.replace("left_hand", "left_paw")
    with caplog.at_level(logging.WARNING):
        PosePredictor.from_config(cfg, weights=weights, opts=["MODEL.SKELETON", renamed])
    assert any(
        "was trained on the keypoints ['nose', 'left_hand'" in record.message
        for record in caplog.records
    )


def test_category_ids_are_those_of_the_checkpoint_where_no_labels_are(trained, image):
    cfg, weights = trained
    predictor = PosePredictor.from_config(cfg, weights=weights)
    assert predictor.category_ids == (18,)
    assert predictor(image).to_coco(1)[0]["category_id"] == 18


def test_an_onnx_file_is_not_read_as_a_checkpoint(trained, tmp_path):
    cfg, _ = trained
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\x08\x07onnx")
    cfg, category_ids = find_config(cfg, opts=["MODEL.WEIGHTS", str(file)])
    assert category_ids == ()
    with pytest.raises(FileNotFoundError, match="There is no annotation file"):
        take_skeleton(cfg)


def test_a_collection_needs_the_checkpoint_alone(trained, tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "predicted"
    photos.mkdir()
    shutil.copy(tmp_path / "1.png", photos)
    arguments = [str(photos), "--weights", str(trained[1]), "--output", str(output)]
    predict([*arguments, "--device", "cpu"])
    assert {row["category_id"] for row in json.loads((output / "results.json").read_text())} == {18}


def test_averaged_weights_predict_where_they_are_asked_for(trained, image, tmp_path):
    _, weights = trained
    content = torch.load(weights, weights_only=True)
    average = {f"module.{name}": value * 0.9 for name, value in content["model"].items()}
    torch.save({**content, "ema": average | {"n_averaged": torch.tensor(1)}}, weights)
    plain = PosePredictor(weights)(image)
    averaged = PosePredictor.from_config(weights=weights, opts=["TEST.EMA", True])(image)
    assert not np.array_equal(plain.keypoints, averaged.keypoints)
    # Exported weights are one of the two, whatever the training's config says.
    _rewrite(weights, **{"TEST.EMA": True})
    export_weights(weights, tmp_path / "small.pth", averaged=True)
    assert len(PosePredictor(tmp_path / "small.pth")(image)) == len(averaged)
    exported = torch.load(tmp_path / "small.pth", weights_only=True)["model"]
    for name in content["model"]:
        kept = average[f"module.{name}"]
        assert torch.equal(exported[name], kept.half() if kept.is_floating_point() else kept)


def test_weights_alone_are_taken_whatever_their_config_asks_for(trained, image, caplog):
    """Earlier versions exported averaged weights under a config that reads an average."""
    _, weights = trained
    expected = PosePredictor(weights)(image)
    content = torch.load(weights, weights_only=True)
    torch.save({key: content[key] for key in ("model", "description")}, weights)
    _rewrite(weights, **{"TEST.EMA": True})
    found = PosePredictor(weights)(image)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert "holds one set of weights, which is taken" in caplog.text


def _rewrite(weights: Path, **changes: object) -> None:
    content = torch.load(weights, weights_only=True)
    cfg = config_from_json(content["description"]["config"], "x")
    cfg.merge_from_list([item for key, value in changes.items() for item in (key, value)])
    content["description"]["config"] = config_to_json(cfg)
    torch.save(content, weights)


def test_the_place_of_the_training_does_not_matter(trained, image):
    _, weights = trained
    changes = {"MODEL.WEIGHTS": "/gone.pth", "OUTPUT_DIR": "/gone", "MODEL.SKELETON": "/gone.yaml"}
    _rewrite(weights, **changes, **{"MODEL.DEVICE": "cuda:7", "MODEL.TIMM.PRETRAINED": True})
    assert len(PosePredictor(weights)(image)) > 0


def test_a_file_does_not_decide_whether_it_is_trusted(trained):
    _, weights = trained
    _rewrite(weights, **{"MODEL.WEIGHTS_ONLY": False})
    assert find_config(None, weights)[0].MODEL.WEIGHTS_ONLY is True
    trusting = find_config(None, weights, ["MODEL.WEIGHTS_ONLY", False])[0]
    assert trusting.MODEL.WEIGHTS_ONLY is False


def test_a_file_that_says_nothing_needs_a_config(trained, tmp_path, capsys):
    content = torch.load(trained[1], weights_only=True)
    torch.save({"model": content["model"]}, tmp_path / "old.pth")
    sentence = "old.pth does not say which model it is of: pass the config"
    with pytest.raises(ValueError, match=sentence):
        PosePredictor(tmp_path / "old.pth")
    command = [str(tmp_path / "1.png"), "--weights", str(tmp_path / "old.pth"), "--output", "x.png"]
    assert demo(command) == 2
    assert "(--config-file; " in capsys.readouterr().err


def test_another_skeleton_is_one_line_of_the_log(trained, caplog):
    """Of everything that building a trainer and loading the weights into it logs."""
    cfg = read_config(TINY, ["MODEL.WEIGHTS", str(trained[1]), "DATASETS.TEST", ()])
    with caplog.at_level(logging.INFO):
        trainer = QueryPoseTrainer(cfg)
        caplog.clear()
        trainer.resume_or_load(resume=False)
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "has another skeleton" in warning.message and "\n" not in warning.message
    assert len(caplog.records) <= 3
