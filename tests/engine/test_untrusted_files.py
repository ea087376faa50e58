"""Configs and checkpoints of strangers: nothing in them runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import read_config


@pytest.mark.parametrize("in_base", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{proof}]]",
        "!!python/object/apply:os.system ['touch {proof}']",
        "!!python/object/apply:os.close [{proof}]",
        "!!python/name:os.system",
    ],
)
def test_yaml_that_would_run_code_is_refused(tmp_path, value, in_base):
    proof, evil = tmp_path / "it_ran", tmp_path / "evil.yaml"
    evil.write_text(f"OUTPUT_DIR: {value.format(proof=proof)}\n")
    config = evil
    if in_base:
        config = tmp_path / "innocent.yaml"
        config.write_text("_BASE_: evil.yaml\n")
    with pytest.raises(ValueError, match=r"is not valid YAML.*python"):
        read_config(config)
    assert not proof.exists()


def test_options_are_values_and_no_expressions(tmp_path, repository):
    proof = tmp_path / "it_ran"
    code = f"__import__('pathlib').Path({str(proof)!r}).touch()"
    cfg = read_config(repository / "configs" / "Base-QueryPose.yaml", ["OUTPUT_DIR", code])
    assert code == cfg.OUTPUT_DIR
    assert not proof.exists()


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, suffix):
    proof, path = tmp_path / "it_ran", tmp_path / f"evil{suffix}"
    content = {"model": {"weight": torch.zeros(1000)}, "extra": RunsCode(proof)}
    if suffix == ".pth":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content | {"model": {}}))
    with pytest.raises(ValueError, match=rf"evil{suffix} cannot .*set MODEL.WEIGHTS_ONLY False"):
        QueryPoseCheckpointer(Tiny()).load(str(path))
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"<html>not found</html>"])
def test_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.pth cannot be read"):
        QueryPoseCheckpointer(Tiny()).load(str(path))
