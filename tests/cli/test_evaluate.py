"""``querypose-eval``: a checkpoint's own evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.cli.evaluate import evaluate, main
from querypose.config import read_config
from querypose.data.datasets.coco import register_configured_datasets
from querypose.engine import QueryPoseTrainer

TINY = Path(__file__).parents[1] / "engine" / "tiny.yaml"
HORSES = "horses_to_be_evaluated"


@pytest.fixture
def trainer(tmp_path, write_labels, label_content, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    labels = write_labels(label_content())
    register = [[HORSES, str(labels), str(tmp_path)], ["gone", str(labels), str(tmp_path)]]
    cfg = read_config(
        TINY,
        [
            *("DATASETS.REGISTER", register, "DATASETS.TRAIN", ("gone",)),
            *("DATASETS.TEST", (HORSES,), "OUTPUT_DIR", str(tmp_path / "run")),
        ],
    )
    register_configured_datasets(cfg)
    Path(cfg.OUTPUT_DIR).mkdir()
    trainer = QueryPoseTrainer(cfg)
    trainer.checkpointer.save("model_final")
    yield trainer
    for name in (HORSES, "gone"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def _found(folder: Path) -> list[dict]:
    return json.loads((folder / f"inference/{HORSES}/coco_instances_results.json").read_text())


def test_a_checkpoint_is_all_that_is_needed(trainer, tmp_path):
    QueryPoseTrainer.test(trainer.cfg, trainer.model)
    for name in (HORSES, "gone"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    output = tmp_path / "evaluated"
    weights = str(tmp_path / "run" / "model_final.pth")
    main(["--weights", weights, "--opts", "OUTPUT_DIR", str(output)])
    expected, found = _found(tmp_path / "run"), _found(output)
    assert len(found) == len(expected) > 0
    # Inference on CPUs folds batch norms, which rounds differently.
    scores = [row["score"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx(scores, abs=1e-6)
    # The dataset of the training was not asked for.
    assert "gone" not in DatasetCatalog


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "{}/nowhere.pth"), "There is no checkpoint file"),
        (("--weights", "{}/bare.pth"), "does not say which model it is of"),
        (("--config-file", "quick/tiny"), "There are no weights to evaluate: pass --weights."),
        (("--config-file", "quick/tyny"), "Did you mean quick/tiny"),
        (
            ("--weights", "{}/run/model_final.pth", "--datasets", "hoses_to_be_evaluated"),
            f"names: add [name, JSON, image folder] to DATASETS.REGISTER. Did you mean '{HORSES}'?",
        ),
        (
            ("--weights", "{}/run/model_final.pth", "--datasets", "synthetic_people_tiny"),
            "does not have the model's keypoints: it has 17 keypoints, not 5",
        ),
        (("--weights", "{}/run/model_final.pth", "--device", "gpu"), "'gpu' is no device"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, message, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": trainer.model.state_dict()}, tmp_path / "bare.pth")
    with pytest.raises(SystemExit) as end:
        main([argument.format(tmp_path) for argument in arguments])
    assert end.value.code.startswith("querypose-eval: ")
    assert message in end.value.code


def test_something_must_be_named(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "--weights" in capsys.readouterr().err


def test_the_last_checkpoint_is_judged_by_itself(trainer):
    """The weights that the training started from need not be there."""
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = "gone.pth"
    assert "keypoints" in evaluate(cfg, resume=True)
