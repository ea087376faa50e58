"""Configs by name."""

from __future__ import annotations

import pytest

from querypose.config import config_names, find_config_file, packaged_config_file, read_config
from querypose.config_files import find_base_file


def test_names_are_those_of_all_configs_but_the_bases(repository):
    configs = repository / "configs"
    files = {file for file in configs.rglob("*.yaml") if not file.name.startswith("Base-")}
    assert {packaged_config_file(name) for name in config_names()} == files
    assert "coco/querypose_r50_light_3x" in config_names()


@pytest.mark.parametrize("name", ["quick/tiny", "quick/tiny.yaml", "configs/quick/tiny.yaml"])
def test_a_name_is_found_from_anywhere(name, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config_file(name) == repository / "configs" / "quick" / "tiny.yaml"


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lite0").write_text("VERSION: 2\n")
    assert find_config_file("lite0").read_text() == "VERSION: 2\n"
    assert packaged_config_file("lite0").read_text() != "VERSION: 2\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("coco/querypose_r50_lite_3x", "Did you mean coco/querypose_r50_light_3x or "),
        ("quality_pose_hrnet_w48", "Did you mean coco/quality_pose_hrnet_w48?"),
        ("configs/quick/tyny.yaml", "Did you mean quick/tiny"),
        ("zyx", "`python -m querypose configs` lists"),
        ("../configs/quick/tiny", "Did you mean"),
    ],
)
def test_an_unknown_name_suggests_close_ones(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        find_config_file(name)
    assert str(error.value).startswith(f"There is no config file {name}. {hint}")


def test_a_base_may_be_a_packaged_config(tmp_path):
    config = tmp_path / "mine.yaml"
    # That one has bases of its own, relative to its folder.
    config.write_text('_BASE_: "quick/lite0.yaml"\nSOLVER:\n  MAX_ITER: 7\n')
    cfg, packaged = read_config(config), read_config("quick/lite0")
    assert cfg.SOLVER.MAX_ITER == 7
    cfg.SOLVER.MAX_ITER = packaged.SOLVER.MAX_ITER
    assert cfg == packaged
    assert type(cfg) is type(cfg.SOLVER) is type(packaged)


def test_a_base_of_the_user_comes_first(tmp_path):
    (tmp_path / "lite0.yaml").write_text("SOLVER:\n  MAX_ITER: 3\n")
    config = tmp_path / "mine.yaml"
    config.write_text('_BASE_: "lite0.yaml"\nVERSION: 2\n')
    assert read_config(config).SOLVER.MAX_ITER == 3


@pytest.mark.parametrize("path", ["https://example.org/coco/querypose_r50_3x.yaml", "none.yaml"])
def test_addresses_and_unknown_bases_stay_as_they_are(path):
    assert find_base_file(path) == path
