"""Configs as JSON inside of checkpoints."""

from __future__ import annotations

import json
import logging

import pytest

from querypose.config import (
    config_from_json,
    config_names,
    config_to_json,
    default_config,
    packaged_config_file,
    read_config,
)


@pytest.mark.parametrize("name", config_names())
def test_every_config_comes_back(name):
    cfg = read_config(packaged_config_file(name))
    text = config_to_json(cfg)
    assert config_to_json(config_from_json(text, "x.pth")) == text


def test_keys_of_other_versions_are_left_out_and_named(caplog):
    content = json.loads(config_to_json(default_config()))
    content["MODEL"]["MASK_ON"] = True
    content["MODEL"]["GONE"] = {"RATE": 3}
    content["THEIRS"] = 1
    with caplog.at_level(logging.WARNING):
        cfg = config_from_json(json.dumps(content), "x.pth")
    (message,) = caplog.messages
    assert message.startswith("The config in x.pth has keys that are not known here")
    assert message.endswith(": MODEL.GONE.RATE, THEIRS.")
    assert cfg.MODEL.MASK_ON is True and "GONE" not in cfg.MODEL


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"MODEL": 3}', "x.pth: Type mismatch"),
        ('{"SOLVER": {"BASE_LR": "fast"}}', "x.pth: Type mismatch"),
        ("[1, 2]", "x.pth does not map config keys to values"),
        ("MODEL: {}", "x.pth: the config is not valid JSON"),
        ("[" * 100_000, "x.pth is not valid"),
    ],
)
def test_what_is_no_config_is_refused(text, problem):
    with pytest.raises(ValueError, match=problem):
        config_from_json(text, "x.pth")
