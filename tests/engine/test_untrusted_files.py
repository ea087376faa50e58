"""Configs, checkpoints, annotations and images of strangers: nothing in them runs or explodes."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import read_config
from querypose.data.datasets.coco import load_coco_keypoints
from querypose.data.image import read_image
from querypose.inference.model_loading import find_config
from querypose.skeleton import COCO_SKELETON, Skeleton


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


@pytest.mark.parametrize(
    "config",
    [
        "OUTPUT_DIR: !!python/object/apply:pathlib.Path.touch "
        "[!!python/object/apply:pathlib.Path [{proof}]]",
        "__import__('pathlib').Path('{proof}').touch()",
        "{{\"OUTPUT_DIR\": \"__import__('pathlib').Path('{proof}').touch()\"}}",
        '{{"_BASE_": "{proof}", "MODEL": {{"WEIGHTS_ONLY": false}}}}',
    ],
)
def test_the_config_in_a_checkpoint_runs_no_code(tmp_path, config):
    proof, path = tmp_path / "it_ran", tmp_path / "evil.pth"
    description = {"config": config.format(proof=proof), "skeleton": None, "category_ids": []}
    torch.save({"model": {}, "description": description}, path)
    try:
        cfg, _ = find_config(None, path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert cfg.MODEL.WEIGHTS_ONLY is True
    assert not proof.exists()


def test_code_beside_a_description_is_refused_and_not_run(tmp_path):
    proof, path = tmp_path / "it_ran", tmp_path / "evil.pth"
    description = {"config": "{}", "skeleton": RunsCode(proof), "category_ids": []}
    torch.save({"model": {}, "description": description}, path)
    with pytest.raises(ValueError, match=r"evil\.pth cannot .*set MODEL.WEIGHTS_ONLY False"):
        find_config(None, path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"<html>not found</html>"])
def test_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.pth cannot be read"):
        QueryPoseCheckpointer(Tiny()).load(str(path))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"images": ' * 100_000, '{"images": [' + "9" * 5000 + "]}"],
    ids=["lists", "objects", "digits"],
)
def test_json_that_would_exhaust_the_parser_is_refused(tmp_path, text):
    path = tmp_path / "deep.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"deep.json is not valid JSON"):
        load_coco_keypoints(str(path), str(tmp_path), "deep", COCO_SKELETON)


def test_yaml_that_would_exhaust_the_parser_is_refused(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("OUTPUT_DIR: " + "[" * 3_000)
    with pytest.raises(ValueError, match=r"deep.yaml is not valid YAML"):
        read_config(path)
    with pytest.raises(ValueError, match=r"deep.yaml does not declare a skeleton"):
        Skeleton.from_file(path)


def test_image_that_would_fill_the_memory_is_refused_unread(tmp_path):
    """A few kilobytes of file, 600 megabytes of pixels."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb.png cannot be read: Image size .*exceeds limit"):
        read_image(str(path), "RGB")


# By the last part of their names; models have a method named eval.
RUN_STRINGS = {"system", "popen", "exec", "__import__", "unsafe_load", "full_load"}
RUN_COMMANDS = {"subprocess", "pty", "commands"}


def test_no_shell_and_no_code_from_strings(repository):
    files = [repository / "train_net.py", *(repository / "querypose").rglob("*.py")]
    assert len(files) > 50
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                found += [(file.name, name) for name in names & RUN_COMMANDS]
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                plain_eval = isinstance(node.func, ast.Name) and name == "eval"
                if name in RUN_STRINGS or plain_eval:
                    found.append((file.name, name))
    assert found == []
