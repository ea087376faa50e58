"""Small models, and images with persons to train them on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints
from torch import nn

from querypose import model_zoo
from querypose.config import read_config


@pytest.fixture
def pinet_cfg(repository) -> Callable[..., CfgNode]:
    """``pinet_cfg("MODEL.PINET.FUSION", False)``: PINet with a very small backbone."""

    def build(*opts: Any) -> CfgNode:
        config = repository / "configs" / "quick" / "pinet_lite0.yaml"
        small = ("MODEL.TIMM.NAME", "test_resnet", "MODEL.PINET.MIN_BOX_AREA", 0.0)
        return read_config(config, [*small, *opts])

    return build


@pytest.fixture
def pinet(pinet_cfg: Callable[..., CfgNode]) -> Callable[..., nn.Module]:
    """``pinet("MODEL.PINET.FUSION", False)``: the seeded model of such a config."""

    def build(*opts: Any) -> nn.Module:
        torch.manual_seed(0)
        return build_model(pinet_cfg(*opts))

    return build


@pytest.fixture
def training_image() -> Callable[..., dict[str, Any]]:
    """``training_image(3, seed=1)``: an image of 96 x 128 pixels with three labeled persons."""

    def draw(count: int, seed: int = 0, num_keypoints: int = 17) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        size = torch.tensor([128.0, 96.0])
        corners = torch.rand(count, 2, generator=generator) * size / 2
        boxes = torch.cat([corners, corners + size / 2], dim=1)
        places = torch.rand(count, num_keypoints, 2, generator=generator)
        places = corners[:, None] + places * size / 2
        keypoints = torch.cat([places, torch.full((count, num_keypoints, 1), 2.0)], dim=-1)
        instances = Instances(
            (96, 128),
            gt_boxes=Boxes(boxes),
            gt_classes=torch.zeros(count, dtype=torch.int64),
            gt_keypoints=Keypoints(keypoints),
            gt_areas=torch.full((count,), 0.53 * 64 * 48),
            gt_box_areas=torch.full((count,), 64.0 * 48),
        )
        image = 255 * torch.rand(3, 96, 128, generator=generator)
        return {"image": image, "instances": instances, "ignore_mask": torch.ones(24, 32)}

    return draw


@pytest.fixture
def released_model(tiny_model, golden):
    """``released_model()``: a tiny model with golden weights, whose queries all differ."""

    def build(changes: dict[str, object] | None = None) -> nn.Module:
        full = (changes or {}).get("MODEL.QUERYPOSE.KEYPOINT_FEEDBACK", False)
        model = tiny_model(changes)
        weights = golden("mini_full" if full else "mini_light").state_dict
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert unexpected == []
        assert all(name.startswith("heatmap_head.") for name in missing)
        return model

    return build


@pytest.fixture(scope="session")
def take_packaged_backbone() -> Callable[[nn.Module], None]:
    """Loads the backbone of the packaged model into one with the same backbone."""

    def take(model: nn.Module) -> None:
        path = Path(model_zoo.__file__).parent / "lite0.pth"
        tensors = torch.load(path, weights_only=True)["model"]
        prefix = "backbone.bottom_up."
        backbone = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        assert not model.load_state_dict(backbone, strict=False).unexpected_keys

    return take
