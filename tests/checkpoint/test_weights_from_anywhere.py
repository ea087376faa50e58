"""Every command takes its weights from any address, and says in one sentence what goes wrong."""

from __future__ import annotations

import json
import logging
import pickle
import runpy
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.modeling import build_model
from detectron2.utils.file_io import Detectron2Handler, PathHandler, PathManager
from PIL import Image
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.cli.demo import main as demo
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer
from querypose.inference.predictor import PosePredictor
from querypose.tools.export_weights import main as export_weights

TINY = Path(__file__).parents[1] / "engine" / "tiny.yaml"
BOTTOM_UP = "backbone.bottom_up."
RESNET = "ImageNetPretrained/MSRA/R-50.pkl"


class OwnPrefix(PathHandler):
    """A project's own storage, which hands out paths."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _get_supported_prefixes(self) -> list[str]:
        return ["own://"]

    def _get_local_path(self, path: str, force: bool = False, **_: object) -> str:
        return str(self.folder / path.removeprefix("own://"))


class OnlyOpens(PathHandler):
    """A project's own storage, which hands out streams."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _get_supported_prefixes(self) -> list[str]:
        return ["opens://"]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: object):
        return (self.folder / path.removeprefix("opens://")).open(mode)


@pytest.fixture
def address(server, monkeypatch) -> Callable[[str, str], str]:
    """``address("detectron2://", "a.pth")``: where a file of the server is found that way."""
    monkeypatch.setattr(Detectron2Handler, "S3_DETECTRON2_PREFIX", f"{server.address}/")
    monkeypatch.setattr(ModelCatalog, "S3_C2_DETECTRON_PREFIX", server.address)
    handlers = PathManager._path_handlers
    monkeypatch.setattr(PathManager, "_path_handlers", handlers.copy())
    PathManager.register_handler(OwnPrefix(server.folder))
    PathManager.register_handler(OnlyOpens(server.folder))

    def make(prefix: str, name: str) -> str:
        if prefix == "catalog://":
            return f"catalog://{name.removesuffix('.pkl')}"
        bases = {"http://": f"{server.address}/", "": f"{server.folder}/"}
        return bases.get(prefix, prefix) + name

    return make


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_weights(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    actual = model.state_dict()
    assert [name for name, value in expected.items() if not torch.equal(actual[name], value)] == []


def resnet_as_caffe2(model: nn.Module) -> dict[str, np.ndarray]:
    """Random tensors under a zoo file's names; batch norms are folded into scale and bias."""
    return {
        name.removeprefix(BOTTOM_UP): torch.randn(value.shape).numpy()
        for name, value in model.state_dict().items()
        if name.startswith(BOTTOM_UP)
        and not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    }


def save_zoo_file(path: Path, arrays: dict[str, np.ndarray]) -> None:
    content = {"model": arrays, "__author__": "Caffe2", "matching_heuristics": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("prefix", ["", "http://", "detectron2://", "own://", "opens://"])
def test_a_checkpoint_loads_from_every_address(prefix, address, server, small_model):
    expected = small_model(seed=1).state_dict()
    torch.save({"model": expected, "iteration": 3}, server.folder / "model.pth")
    model = small_model()
    extras = QueryPoseCheckpointer(model).load(address(prefix, "model.pth"))
    assert extras == {"iteration": 3}
    assert_weights(model, expected)


@pytest.mark.parametrize(
    "prefix", ["", "http://", "detectron2://", "catalog://", "own://", "opens://"]
)
def test_a_resnet_of_detectron2s_zoo_loads_from_every_address(prefix, address, server, small_model):
    model = small_model()
    arrays = resnet_as_caffe2(model)
    save_zoo_file(server.folder / RESNET, arrays)
    QueryPoseCheckpointer(model).load(address(prefix, RESNET))
    assert_weights(model, {BOTTOM_UP + n: torch.from_numpy(v) for n, v in arrays.items()})


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("?matching_heuristics=True", ""),
        ("?download=1", "?download=1"),
        ("?matching_heuristics=True&token=a%2Fb", "?token=a%2Fb"),
        ("?a=1&matching_heuristics=True&b=2", "?a=1&b=2"),
        ("?token=" + 300 * "x", "?token=" + 300 * "x"),
    ],
    ids=["heuristics", "server", "first", "middle", "long"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_query_is_the_servers_except_for_detectron2s_own(
    query, asked, suffix, server, small_model
):
    model = small_model()
    arrays = resnet_as_caffe2(model)
    expected = {BOTTOM_UP + name: torch.from_numpy(value) for name, value in arrays.items()}
    if suffix == ".pkl":
        save_zoo_file(server.folder / "R-50.pkl", arrays)
    elif "heuristics" in query:
        torch.save(
            {name: torch.from_numpy(v) for name, v in arrays.items()}, server.folder / "R-50.pth"
        )
    else:
        expected = small_model(seed=1).state_dict()
        torch.save(expected, server.folder / "R-50.pth")
    QueryPoseCheckpointer(model).load(f"{server.address}/R-50{suffix}{query}")
    assert_weights(model, expected)
    assert server.requests == [f"/R-50{suffix}{asked}"]


def test_detectron2s_query_works_on_paths(small_model, tmp_path):
    model = small_model()
    arrays = resnet_as_caffe2(model)
    torch.save(
        {name: torch.from_numpy(value) for name, value in arrays.items()}, tmp_path / "a.pth"
    )
    QueryPoseCheckpointer(model).load(f"{tmp_path}/a.pth?matching_heuristics=True")
    assert_weights(model, {BOTTOM_UP + n: torch.from_numpy(v) for n, v in arrays.items()})


def test_a_question_mark_may_stand_in_a_files_name(small_model, tmp_path):
    expected = small_model(seed=1).state_dict()
    torch.save(expected, tmp_path / "which?.pth")
    model = small_model()
    QueryPoseCheckpointer(model).load(tmp_path / "which?.pth")
    assert_weights(model, expected)


@pytest.fixture
def tiny_checkpoint(server) -> dict[str, torch.Tensor]:
    """The weights of ``/runs/final.pth``, of a model that tests/engine/tiny.yaml describes."""
    torch.manual_seed(5)
    model = build_model(read_config(TINY))
    (server.folder / "runs").mkdir()
    torch.save({"model": model.state_dict()}, server.folder / "runs" / "final.pth")
    return weights(model)


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


def test_training_starts_from_an_address_and_resumes_without_it(server, tiny_checkpoint, tmp_path):
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
    told = [str(tmp_path / "image.png"), "--save-json", str(tmp_path / "out.json")]
    model = ["--config-file", str(TINY), "--weights", where, "--confidence-threshold", "0"]
    assert demo([*told, *model]) == 0
    assert len(json.loads((tmp_path / "out.coco.json").read_text())) == len(expected)
    assert server.requests == ["/runs/final.pth"]


def test_export_takes_addresses(server, tiny_checkpoint, monkeypatch, tmp_path):
    where = f"{server.address}/runs/final.pth"
    command = ["export_weights", where, str(tmp_path / "out.pth")]
    monkeypatch.setattr(sys, "argv", command)
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
class TestEveryCommandTellsInOneSentence:
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
        told = [str(tmp_path / "image.png"), "--save-json", str(tmp_path / "out.json")]
        assert demo([*told, "--config-file", str(TINY), "--weights", where]) == 2
        assert sentence.format(where) in capsys.readouterr().err.splitlines()[-1]

    def test_export(self, where, sentence, monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "argv", ["export_weights", where, str(tmp_path / "out.pth")])
        with pytest.raises(SystemExit) as end:
            export_weights()
        assert end.value.code.startswith("export_weights: " + sentence.format(where))
