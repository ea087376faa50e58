"""Files that a config names and a user must fetch."""

from __future__ import annotations

import pytest

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.origins import origin_hint
from querypose.config import config_names, packaged_config_file, read_config

CONFIGS = [read_config(packaged_config_file(name)) for name in config_names()]
FILES = sorted({cfg.MODEL.WEIGHTS for cfg in CONFIGS if cfg.MODEL.WEIGHTS.endswith(".pth")})


@pytest.mark.parametrize("file", [file for file in FILES if "://" not in file])
def test_every_file_that_a_config_names_has_an_origin(file, small_model):
    with pytest.raises(FileNotFoundError) as error:
        QueryPoseCheckpointer(small_model()).load(file)
    message = str(error.value)
    assert message.startswith(f"There is no checkpoint file {file}. It holds a backbone, ")
    assert "github.com/" in message and "\n" not in message


def test_the_trained_models_of_the_authors_are_named():
    assert "(keypoint AP 69.8)" in origin_hint("weights/pose_hrnet_w32_384x288.pth")
    assert "(keypoint AP 71.0)" in origin_hint("pose_hrnet_w48_384x288.pth")
    assert "AP" not in origin_hint("hrnet_w32-36af842e.pth")


def test_other_files_have_none():
    assert origin_hint("model_final.pth") == ""
