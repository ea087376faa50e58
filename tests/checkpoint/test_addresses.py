"""The checkpointer reads every kind of address."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer

BOTTOM_UP = "backbone.bottom_up."
RESNET = "ImageNetPretrained/MSRA/R-50.pkl"


def assert_holds(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
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
    assert_holds(model, expected)


@pytest.mark.parametrize(
    "prefix", ["", "http://", "detectron2://", "catalog://", "own://", "opens://"]
)
def test_a_resnet_of_detectron2s_zoo_loads_from_every_address(prefix, address, server, small_model):
    model = small_model()
    arrays = resnet_as_caffe2(model)
    save_zoo_file(server.folder / RESNET, arrays)
    QueryPoseCheckpointer(model).load(address(prefix, RESNET))
    assert_holds(model, {BOTTOM_UP + n: torch.from_numpy(v) for n, v in arrays.items()})


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
    assert_holds(model, expected)
    assert server.requests == [f"/R-50{suffix}{asked}"]


def test_detectron2s_query_works_on_paths(small_model, tmp_path):
    model = small_model()
    arrays = resnet_as_caffe2(model)
    torch.save(
        {name: torch.from_numpy(value) for name, value in arrays.items()}, tmp_path / "a.pth"
    )
    QueryPoseCheckpointer(model).load(f"{tmp_path}/a.pth?matching_heuristics=True")
    assert_holds(model, {BOTTOM_UP + n: torch.from_numpy(v) for n, v in arrays.items()})


def test_a_question_mark_may_stand_in_a_files_name(small_model, tmp_path):
    expected = small_model(seed=1).state_dict()
    torch.save(expected, tmp_path / "which?.pth")
    model = small_model()
    QueryPoseCheckpointer(model).load(tmp_path / "which?.pth")
    assert_holds(model, expected)
