"""Every command and every Python block of README and docs/ runs, or says what it needs.

The blocks of a page run in its order, in one folder and one process, so each may use what those
before it made.
"""

from __future__ import annotations

import glob
import importlib
import json
import os
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from querypose import model_zoo
from querypose.checkpoint import ModelDescription
from querypose.cli.commands import run
from querypose.config import config_to_json, default_config, find_config_file, read_config
from querypose.data.image import read_image
from querypose.skeleton import COCO_SKELETON, Skeleton
from querypose.synthetic.dataset import SyntheticPeople

# A comment before a fence: `<!-- not run: needs COCO -->`; `<!-- run with: KEY VALUE -->`, whose
# words are added to every command of the block; `<!-- saved as: my.yaml -->`.
_MARK = re.compile(r"<!-- (not run|run with|saved as): (.+) -->")
_FENCE = re.compile(r"```(\w*)")


class Block(NamedTuple):
    """A fenced block of code.

    Attributes:
        line: the number of its first line in the page.
        language: the word behind the fence.
        text: the code.
        added: words that are added to every command.
        not_run: why it does not run; empty if it does.
        saved_as: the file that a reader saves it as; empty for none.
    """

    line: int
    language: str
    text: str
    added: tuple[str, ...]
    not_run: str
    saved_as: str


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.fullmatch(lines[number])
        number += 1
        if opening is None:
            continue
        end = lines.index("```", number)
        mark = _MARK.fullmatch(lines[number - 2]) if number > 1 else None
        kind, text = mark.groups() if mark else ("", "")
        yield Block(
            line=number + 1,
            language=opening[1],
            text="\n".join(lines[number:end]) + "\n",
            added=tuple(shlex.split(text)) if kind == "run with" else (),
            not_run=text if kind == "not run" else "",
            saved_as=text if kind == "saved as" else "",
        )
        number = end + 1


def commands_of(block: Block) -> Iterator[str]:
    """The command lines of a block; a backslash at the end of a line joins the next one."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
RUN = [
    page for page in PAGES if any(block.language in ("bash", "python") for block in blocks_of(page))
]
# Pages whose blocks take a minute.
SLOW = {"skeletons"}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that pages speak of; datasets that they register are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["querypose"])
    people = SyntheticPeople(num_images=2, seed=5, image_size=(192, 192), max_people=2)
    images = [read_image(people.path(index), "RGB") for index in range(2)]
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{index}.jpg")
    Image.fromarray(images[0]).save(tmp_path / "photo.jpg")
    _write_horses(tmp_path / "horses", images)
    _write_clip(tmp_path / "clip.mp4", images)
    _write_checkpoint(tmp_path / "model_final.pth")
    before = set(DatasetCatalog.list())
    yield tmp_path
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _write_horses(folder, images):
    """Two images of one horse each, of five keypoints."""
    (folder / "images").mkdir(parents=True)
    names = ["nose", "left_eye", "right_eye", "withers", "tail"]
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "horse", "keypoints": names}],
    }
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        height, width = image.shape[:2]
        size = {"height": height, "width": width}
        content["images"].append({"id": index, "file_name": f"{index}.png"} | size)
        keypoints = [value for number in range(5) for value in (40 + 20 * number, 90, 2)]
        horse = {"id": index + 1, "image_id": index, "category_id": 1, "iscrowd": 0}
        content["annotations"].append(horse | {"bbox": [30, 60, 110, 60], "keypoints": keypoints})
    (folder / "train.json").write_text(json.dumps(content))


def _write_clip(path, images):
    cv2 = pytest.importorskip("cv2")
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (width, height))
    for image in images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()


def _write_checkpoint(path):
    """The packaged model, as a training would have written it."""
    cfg = model_zoo.get_config()
    weights = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)
    description = ModelDescription(config_to_json(cfg), COCO_SKELETON)
    torch.save(weights | description.fields(), path)


def _identify(page):
    return page.relative_to(REPOSITORY).as_posix()


def _marked(page):
    slow = [pytest.mark.slow] if page.stem in SLOW else []
    return pytest.param(page, marks=slow, id=_identify(page))


@pytest.mark.parametrize("page", map(_marked, RUN))
def test_code_runs(page, workplace, monkeypatch):
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks_of(page):
        if block.saved_as:
            Path(block.saved_as).write_text(block.text)
        if block.not_run or block.language not in ("bash", "python"):
            continue
        where = f"{_identify(page)}:{block.line}"
        if block.language == "python":
            exec(compile(block.text, where, "exec"), module.__dict__)
            continue
        for command in commands_of(block):
            print(f"{where}: {command}")
            _run_command(command, block.added, monkeypatch)


def _run_command(command, added, monkeypatch):
    words = shlex.split(os.path.expandvars(command), comments=True)
    setting = re.fullmatch(r"([A-Z_]+)=(.*)", words[-1])
    if setting and words[:-1] in ([], ["export"]):
        monkeypatch.setenv(*setting.groups())
        return
    words = [found for word in words for found in sorted(glob.glob(word)) or [word]]
    match [*words, *added]:
        case ["python", "-m", "querypose", *arguments]:
            status = run(arguments)
        case [name, *arguments] if name.startswith("querypose-"):
            status = run([name.removeprefix("querypose-"), *arguments])
        case ["python", "-m", name, *arguments] if name.startswith("querypose."):
            status = importlib.import_module(name).main(arguments)
        case _:
            raise ValueError(f"No command of the package, mark its block as not run: {command}")
    assert not status


@pytest.mark.parametrize("page", PAGES, ids=_identify)
def test_keys_and_configs_exist(page):
    """Also in text, and in blocks that do not run."""
    cfg = default_config()
    sections = "|".join(name for name, value in cfg.items() if isinstance(value, type(cfg)))
    for name in re.findall(rf"\b(?:{sections})(?:\.[A-Z0-9_]+)+", page.read_text()):
        node = cfg
        for part in name.split("."):
            assert part in node, name
            node = node[part]
    saved = {block.saved_as for block in blocks_of(page)}
    for name in re.findall(r"--config-file[ =]([\w./-]+)", page.read_text()):
        if name not in saved:
            assert find_config_file(name)


@pytest.mark.parametrize("page", PAGES, ids=_identify)
def test_yaml_is_a_config_or_a_skeleton(page, tmp_path):
    for block in blocks_of(page):
        if block.language != "yaml":
            continue
        if "keypoints" in yaml.safe_load(block.text):
            assert Skeleton.from_yaml(block.text, _identify(page)).num_keypoints
            continue
        config = tmp_path / "config.yaml"
        config.write_text(block.text)
        assert read_config(config).VERSION == 2


@pytest.mark.parametrize("page", PAGES, ids=_identify)
def test_blocks_have_a_language(page):
    assert {block.language for block in blocks_of(page)} <= {
        "bash",
        "python",
        "yaml",
        "text",
        "json",
    }


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 160
