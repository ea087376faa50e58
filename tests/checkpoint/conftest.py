"""Fixtures for the tests of checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint.catalog import ModelCatalog
from detectron2.utils.file_io import Detectron2Handler, PathHandler, PathManager
from torch import nn

_released_weights: dict[str, dict[str, torch.Tensor]] = {}


@pytest.fixture
def released(golden) -> Callable[[str], dict[str, torch.Tensor]]:
    """``released("mini_light")``: the tensors of a released file, computed once."""

    def load(name: str) -> dict[str, torch.Tensor]:
        if name not in _released_weights:
            _released_weights[name] = golden(name).state_dict
        return dict(_released_weights[name])

    return load


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """``save(content, "weights.pth")``: writes a file of that format; returns its path."""

    def write(content: object, name: str = "weights.pth") -> str:
        path = tmp_path / name
        if name.endswith(".pkl"):
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        return str(path)

    return write


@pytest.fixture
def copy_weights() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """``copy_weights(model)``: its state dict, which later changes of the model leave alone."""
    return lambda model: {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def assert_weights() -> Callable[[nn.Module, dict[str, torch.Tensor]], None]:
    """``assert_weights(model, expected)``: its whole state dict is the expected one."""

    def compare(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
        actual = model.state_dict()
        assert actual.keys() == expected.keys()
        different = [n for n, value in actual.items() if not torch.equal(value, expected[n])]
        assert different == []

    return compare


class OwnPrefix(PathHandler):
    """A storage of a user's project that gives local paths."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _get_supported_prefixes(self) -> list[str]:
        return ["own://"]

    def _get_local_path(self, path: str, force: bool = False, **_: object) -> str:
        return str(self.folder / path.removeprefix("own://"))


class OnlyOpens(PathHandler):
    """A storage of a user's project that only opens streams."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _get_supported_prefixes(self) -> list[str]:
        return ["opens://"]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: object):
        return (self.folder / path.removeprefix("opens://")).open(mode)


@pytest.fixture
def address(server, monkeypatch) -> Callable[[str, str], str]:
    """``address("detectron2://", "a.pth")``: the address of a file of the server."""
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
