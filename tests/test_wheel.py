"""What somebody has who installed a wheel, and has no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from querypose.cli.commands import COMMANDS
from querypose.config import config_names

_SOURCES = ("configs", "querypose", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md")
_BUILD = ("pyproject.toml", "setup.py", "train_net.py")


def _run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# A process of its own takes seconds to import PyTorch: all that a user may do is in one.
_USE = """
from detectron2.config import get_cfg
from detectron2.modeling import build_model
import querypose
from querypose import add_querypose_config, model_zoo
from querypose.cli.demo import main

print("RESULT", querypose.__file__)
print("RESULT", *model_zoo.config_names())
for name in model_zoo.config_names():
    assert model_zoo.get_config(name).VERSION == 2
assert model_zoo.get_config("lazy/querypose_r50_light_3x.py").train.max_iter == 140000

cfg = get_cfg()
add_querypose_config(cfg)
cfg.merge_from_file(model_zoo.get_config_file("coco/querypose_r50_light_3x"))
cfg.MODEL.DEVICE = "meta"
print("RESULT", type(build_model(cfg)).__name__)

assert main(["photo.png", "--output", "drawn.png"]) == 0
named = ("--config-file", "lite0", "--weights", "querypose://lite0.pth")
assert main(["photo.png", "--output", "again.png", *named]) == 0
"""


@pytest.fixture
def site(tmp_path, repository):
    """A folder with the package as a wheel installs it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in (*_SOURCES, *_BUILD):
        copy = shutil.copytree if (repository / name).is_dir() else shutil.copy
        copy(repository / name, source / name)
    # From the source distribution, which so holds all that a build needs.
    code = "from setuptools import build_meta; build_meta.build_sdist('..')"
    _run("-c", code, cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    pip = ("-m", "pip", "--no-input", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, sdist, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    _run(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    return target


def test_a_wheel_has_configs_weights_and_commands(site, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(elsewhere / "photo.png")
    printed = _run("-c", _USE, cwd=elsewhere, PYTHONPATH=str(site), CUDA_VISIBLE_DEVICES="")
    results = [line.split()[1:] for line in printed.splitlines() if line.startswith("RESULT")]
    (where,), names, model = results
    assert Path(where).is_relative_to(site)
    assert names == config_names()
    assert model == ["QueryPose"]
    drawn, again = (
        np.asarray(Image.open(elsewhere / f"{name}.png")) for name in ("drawn", "again")
    )
    assert drawn.shape == pixels.shape
    np.testing.assert_array_equal(again, drawn)
    assert {f"querypose-{name}" for name in COMMANDS} <= {
        file.name for file in (site / "bin").iterdir()
    }
