"""A training that starts from nothing says so."""

from __future__ import annotations

import logging

import pytest
import torch

RANDOM = "The training starts from random weights"


@pytest.fixture
def warnings_of(start, caplog):
    def load(cfg, resume=False) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            start(cfg, resume)
        return [line for line in caplog.messages if line.startswith(RANDOM)]

    return load


def test_random_weights_are_said_in_one_line_with_the_ways_out(tiny_config, warnings_of):
    (line,) = warnings_of(tiny_config())
    assert "MODEL.WEIGHTS" in line
    assert "MODEL.TIMM.PRETRAINED True to download timm's ImageNet weights of test_resnet" in line


def test_other_backbones_have_one_way_out(tiny_config, warnings_of):
    opts = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
    (line,) = warnings_of(tiny_config("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", *opts))
    assert line.endswith("or of a backbone.")


def test_given_weights_and_resumed_trainings_are_silent(tiny_config, start, warnings_of, tmp_path):
    trainer = start(tiny_config())
    trainer.iter = 1
    trainer.checkpointer.save("model_0000001")
    torch.save({"model": trainer.model.state_dict()}, tmp_path / "weights.pth")
    assert warnings_of(tiny_config(), resume=True) == []
    elsewhere = ("OUTPUT_DIR", str(tmp_path / "other"))
    given = tiny_config("MODEL.WEIGHTS", str(tmp_path / "weights.pth"), *elsewhere)
    assert warnings_of(given) == []
