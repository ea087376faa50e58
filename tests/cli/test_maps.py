"""``--draw maps`` shows what a dense model sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from querypose.cli.demo import main
from querypose.config import read_config


@pytest.fixture(params=["pinet", "quality_pose"])
def command(request, repository, tmp_path):
    """The demo's arguments for an image and an untrained model."""
    opts = ["MODEL.TIMM.NAME", "test_resnet", "DATASETS.TRAIN", "('synthetic_people_tiny',)"]
    config_file = repository / "configs" / "quick" / f"{request.param}_lite0.yaml"
    torch.manual_seed(0)
    model = build_model(read_config(config_file, opts))
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return [
        *(str(tmp_path / "a.png"), "--output", str(tmp_path / "drawn" / "a.png")),
        *("--config-file", str(config_file), "--weights", str(tmp_path / "model.pth")),
        *("--draw", "skeleton,maps", "--opts", *opts),
    ]


def test_maps_lie_beside_the_drawing(command, tmp_path):
    assert main(command) == 0
    drawn = Image.open(tmp_path / "drawn" / "a.png")
    maps = Image.open(tmp_path / "drawn" / "a.maps.png")
    assert drawn.size == (96, 64)
    # At least one map, with its name above it.
    assert maps.size[0] >= 96 and maps.size[1] > 64


def test_a_model_without_maps_is_named(command, tmp_path, capsys):
    command = [*command[:3], "--draw", "maps"]
    assert main(command) == 2
    assert "This model has no maps" in capsys.readouterr().err
