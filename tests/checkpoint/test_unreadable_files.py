from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from querypose.checkpoint import QueryPoseCheckpointer

BACKBONE = "backbone.bottom_up."


class _TouchesAFile:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["none.pth", "none.pkl", "none.safetensors"])
def test_a_missing_file_is_named(name, small_model, tmp_path):
    path = str(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint file {re.escape(path)}"):
        QueryPoseCheckpointer(small_model()).load(path)


@pytest.mark.parametrize("name", ["cut.pth", "cut.pkl", "cut.safetensors"])
def test_a_truncated_file_is_named(name, small_model, tmp_path, save):
    model = small_model()
    path = tmp_path / name
    if name.endswith("pkl"):
        arrays = {key: value.numpy() for key, value in model.state_dict().items()}
        save({"model": arrays, "__author__": "someone"}, name)
    elif name.endswith("safetensors"):
        save_file(model.state_dict(), path)
    else:
        save(model.state_dict(), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        QueryPoseCheckpointer(model).load(str(path))


@pytest.mark.parametrize("name", ["empty.pth", "empty.pkl", "empty.safetensors"])
def test_an_empty_file_is_named(name, small_model, tmp_path):
    path = tmp_path / name
    path.touch()
    with pytest.raises(ValueError, match=re.escape(str(path))):
        QueryPoseCheckpointer(small_model()).load(str(path))


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"model": 3}, {"epoch": 3}])
def test_a_file_without_weights_is_named(content, small_model, save):
    path = save(content)
    with pytest.raises(ValueError, match=re.escape(path)):
        QueryPoseCheckpointer(small_model()).load(path)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_code_is_refused_until_it_is_trusted(name, small_model, tmp_path, save):
    source, model = small_model(seed=1), small_model()
    touched = tmp_path / "touched"
    weights = source.state_dict()
    if name.endswith("pkl"):
        weights = {
            key.removeprefix(BACKBONE): value.numpy()
            for key, value in weights.items()
            if key.startswith(BACKBONE)
        }
    extra = {"model": weights, "__author__": "someone", "extra": _TouchesAFile(touched)}
    file = save(extra | {"matching_heuristics": name.endswith("pkl")}, name)
    with pytest.raises(ValueError, match=r"as weights alone .*MODEL\.WEIGHTS_ONLY False"):
        QueryPoseCheckpointer(model).load(file)
    assert not touched.exists()

    QueryPoseCheckpointer(model, weights_only=False).load(file)
    assert touched.exists()
    name = f"{BACKBONE}res2.0.conv1.weight"
    assert torch.equal(model.state_dict()[name], source.state_dict()[name])
