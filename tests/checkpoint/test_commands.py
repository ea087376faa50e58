"""Every command takes its weights from any address, and reports errors in one sentence."""

from __future__ import annotations

import json
import logging
import runpy
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from querypose.cli.demo import main as demo
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer
from querypose.inference.predictor import PosePredictor
from querypose.tools.export_weights import main as export_weights

TINY = Path(__file__).parents[1] / "engine" / "tiny.yaml"


@pytest.fixture
def tiny_checkpoint(server, copy_weights) -> dict[str, torch.Tensor]:
    """The weights of ``/runs/final.pth``, of a model that tests/engine/tiny.yaml describes."""
    torch.manual_seed(5)
    model = build_model(read_config(TINY))
    (server.folder / "runs").mkdir()
    torch.save({"model": model.state_dict()}, server.folder / "runs" / "final.pth")
    return copy_weights(model)


@pytest.fixture
def train_net(repository, monkeypatch, tmp_path) -> Callable[..., None]:
    """Runs train_net.py in this process, which gets its loggers back."""
    logger = logging.getLogger("querypose")
    for attribute in ("handlers", "level", "propagate"):
        monkeypatch.setattr(logger, attribute, copy(getattr(logger, attribute)))
    options = (
        "OUTPUT_DIR",
        str(tmp_path / "output"),
        "DATASETS.TEST",
        "('synthetic_people_tiny',)",
    )
    monkeypatch.chdir(repository)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(*arguments: str) -> None:
        monkeypatch.setattr(
            sys, "argv", ["train_net.py", "--config-file", str(TINY), *arguments, *options]
        )
        runpy.run_path("train_net.py", run_name="__main__")

    return run


def test_training_starts_from_an_address_and_resumes_without_it(
    server, tiny_checkpoint, tmp_path, assert_weights
):
    cfg = read_config(
        TINY,
        ["MODEL.WEIGHTS", f"{server.address}/runs/final.pth", "OUTPUT_DIR", str(tmp_path / "run")],
    )
    Path(cfg.OUTPUT_DIR).mkdir()
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=True)
    assert_weights(trainer.model, tiny_checkpoint)
    trainer.iter = 3
    trainer.checkpointer.save("model_0000003")
    resumed = QueryPoseTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4
    assert server.requests == ["/runs/final.pth"]


def test_evaluation_takes_an_address(
    train_net, server, address, tiny_checkpoint, tmp_path, monkeypatch
):
    # The checkpoint holds the backbone: nothing may ask timm's hub for it.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    where = address("detectron2://", "runs/final.pth")
    train_net("--eval-only", "MODEL.WEIGHTS", where, "MODEL.TIMM.PRETRAINED", "True")
    results = tmp_path / "output/inference/synthetic_people_tiny/coco_instances_results.json"
    assert len(json.loads(results.read_text())) > 0
    assert server.requests == ["/runs/final.pth"]
    log = (tmp_path / "output" / "log.txt").read_text()
    assert "Loading detectron2://runs/final.pth" in log


def test_predictor_and_demo_take_an_address(server, tiny_checkpoint, tmp_path):
    where = f"{server.address}/runs/final.pth"
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    predictor = PosePredictor.from_config(TINY, weights=where, confidence_threshold=0)
    local = PosePredictor.from_config(
        TINY, weights=server.folder / "runs/final.pth", confidence_threshold=0
    )
    expected = local(image)
    assert len(expected) > 0
    np.testing.assert_array_equal(predictor(image).keypoints, expected.keypoints)

    Image.fromarray(image).save(tmp_path / "image.png")
    arguments = [str(tmp_path / "image.png"), "--save-json", str(tmp_path / "out.json")]
    model = ["--config-file", str(TINY), "--weights", where, "--confidence-threshold", "0"]
    assert demo([*arguments, *model]) == 0
    assert len(json.loads((tmp_path / "out.coco.json").read_text())) == len(expected)
    assert server.requests == ["/runs/final.pth"]


def test_export_takes_an_address(server, tiny_checkpoint, monkeypatch, tmp_path):
    where = f"{server.address}/runs/final.pth"
    monkeypatch.setattr(sys, "argv", ["export_weights", where, str(tmp_path / "out.pth")])
    export_weights()
    exported = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    assert exported.keys() == tiny_checkpoint.keys()
    for name, value in tiny_checkpoint.items():
        torch.testing.assert_close(exported[name].to(value.dtype), value, rtol=1e-3, atol=1e-4)
    assert server.requests == ["/runs/final.pth"]


def send_page(handler) -> None:
    page = b"<!DOCTYPE html>\n<html><body>Please sign in.</body></html>"
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(page)))
    handler.end_headers()
    handler.wfile.write(page)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.pth", "There is no checkpoint file {}: the server answers 404 File not found."),
        (
            "page.pth",
            "{} cannot be read: it is a web page (HTML or XML) in place of a checkpoint; ",
        ),
    ],
)
class TestEveryCommandReportsOneSentence:
    @pytest.fixture
    def where(self, name, server) -> str:
        server.answers["/page.pth"] = send_page
        return f"{server.address}/{name}"

    @pytest.mark.parametrize("eval_only", [(), ("--eval-only",)], ids=["train", "eval"])
    def test_train_net(self, eval_only, where, sentence, train_net):
        with pytest.raises(SystemExit) as end:
            train_net(*eval_only, "MODEL.WEIGHTS", where)
        assert end.value.code.startswith("train_net.py: " + sentence.format(where))
        assert "\n" not in end.value.code

    def test_demo(self, where, sentence, tmp_path, capsys):
        Image.new("RGB", (80, 60)).save(tmp_path / "image.png")
        arguments = [str(tmp_path / "image.png"), "--save-json", str(tmp_path / "out.json")]
        assert demo([*arguments, "--config-file", str(TINY), "--weights", where]) == 2
        assert sentence.format(where) in capsys.readouterr().err.splitlines()[-1]

    def test_export(self, where, sentence, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "argv", ["export_weights", where, str(tmp_path / "out.pth")])
        with pytest.raises(SystemExit) as end:
            export_weights()
        assert end.value.code.startswith("export_weights: " + sentence.format(where))
