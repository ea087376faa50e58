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


@pytest.fixture(scope="module")
def run_installed(tmp_path_factory, repository):
    """Runs Python in an empty folder with the package as a wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    source, site, elsewhere = (folder / name for name in ("source", "site", "elsewhere"))
    source.mkdir()
    elsewhere.mkdir()
    for name in (*_SOURCES, *_BUILD):
        copy = shutil.copytree if (repository / name).is_dir() else shutil.copy
        copy(repository / name, source / name)
    # From the source distribution, which so holds all that a build needs.
    code = "from setuptools import build_meta; build_meta.build_sdist('..')"
    _run("-c", code, cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    pip = ("-m", "pip", "--no-input", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sdist, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    _run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=folder)

    def run(*command: object) -> str:
        return _run(*command, cwd=elsewhere, PYTHONPATH=str(site), CUDA_VISIBLE_DEVICES="")

    where = run("-c", "import querypose; print(querypose.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    run.folder = elsewhere
    run.scripts = site / "bin"
    return run


def test_every_config_is_there(run_installed):
    assert run_installed("-m", "querypose", "configs").split() == config_names()
    code = """
from querypose import model_zoo
for name in model_zoo.config_names():
    assert model_zoo.get_config(name).VERSION == 2
    assert model_zoo.get_config(name + ".yaml").MODEL.META_ARCHITECTURE
"""
    run_installed("-c", code)


def test_a_model_is_built_in_an_existing_project(run_installed):
    code = """
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from querypose import add_querypose_config, model_zoo
cfg = get_cfg()
add_querypose_config(cfg)
cfg.merge_from_file(model_zoo.get_config_file("coco/querypose_r50_light_3x"))
cfg.MODEL.DEVICE = "meta"
print(type(build_model(cfg)).__name__)
"""
    assert run_installed("-c", code).split() == ["QueryPose"]


def test_the_demo_draws_with_the_packaged_weights(run_installed):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(run_installed.folder / "photo.png")
    run_installed(run_installed.scripts / "querypose-demo", "photo.png", "--output", "drawn.png")
    with Image.open(run_installed.folder / "drawn.png") as drawn:
        assert drawn.size == (128, 96)
    # The packaged config by its name, and its weights by their address.
    named = ("--config-file", "lite0", "--weights", "querypose://lite0.pth")
    run_installed("-m", "querypose", "demo", "photo.png", "--output", "again.png", *named)
    again, first = (
        np.asarray(Image.open(run_installed.folder / name)) for name in ("again.png", "drawn.png")
    )
    np.testing.assert_array_equal(again, first)
