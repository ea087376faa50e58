"""Fixtures that every test may ask for."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

from querypose import register_coco_keypoints
from querypose.config import read_config

GOLDEN_DIR = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parent.parent


def _load_filler():
    spec = importlib.util.spec_from_file_location("golden_filler", GOLDEN_DIR / "filler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filler = _load_filler()


@dataclass(frozen=True)
class Golden:
    """What the method's reference computes for one model."""

    arrays: dict[str, np.ndarray]
    state_dict: dict[str, torch.Tensor]
    images: list[torch.Tensor]


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """``golden("mini_light")``: reference arrays, released-layout weights and input pictures.

    A ``prefix`` fills the tensors alone whose names begin so.
    """

    def load(name: str, prefix: str = "") -> Golden:
        shapes = json.loads((GOLDEN_DIR / f"{name}.shapes.json").read_text())
        shapes = {key: shape for key, shape in shapes.items() if key.startswith(prefix)}
        with np.load(GOLDEN_DIR / f"{name}.npz") as arrays:
            outputs = dict(arrays)
        sizes = [(96, 128), (112, 96)] if name.startswith("mini") else [(128, 160)]
        images = [filler.image(*size, seed=seed) for seed, size in enumerate(sizes)]
        return Golden(outputs, filler.state_dict(shapes), images)

    return load


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures, or a skip where this machine has none."""
    default = REPOSITORY.parent / "shared" / "data"
    folder = Path(os.environ.get("QUERYPOSE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real pictures here (set QUERYPOSE_TEST_DATA to their folder)")
    return folder


@pytest.fixture
def twenty_images(real_data: Path, tmp_path: Path) -> Iterator[str]:
    """The name of a dataset of twenty real images, each with one or two large persons."""
    folder = real_data / "coco_person"
    content = json.loads((folder / "annotations" / "person_keypoints_train.json").read_text())
    persons: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for person in content["annotations"]:
        persons[person["image_id"]].append(person)
    chosen = [image for image in content["images"] if _is_clear(image, persons[image["id"]])][:20]
    content["images"] = chosen
    content["annotations"] = [person for image in chosen for person in persons[image["id"]]]
    json_file = tmp_path / "twenty.json"
    json_file.write_text(json.dumps(content))
    name = "twenty_images"
    register_coco_keypoints(name, json_file, folder / "train")
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _is_clear(image: dict, persons: list[dict]) -> bool:
    # So large that a small input shows every person in detail.
    smallest = 0.15 * image["width"] * image["height"]
    return 1 <= len(persons) <= 2 and all(
        not person["iscrowd"]
        and person["num_keypoints"] >= 8
        and person["bbox"][2] * person["bbox"][3] > smallest
        for person in persons
    )


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds configs/ and train_net.py."""
    return REPOSITORY


# The widths of the golden files mini_light and mini_full.
_TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.QUERYPOSE.HIDDEN_DIM": 64,
    "MODEL.QUERYPOSE.NUM_ATTENTION_HEADS": 4,
    "MODEL.QUERYPOSE.FFN_DIM": 128,
    "MODEL.QUERYPOSE.DYNAMIC_DIM": 16,
    "MODEL.QUERYPOSE.PART_DIM": 32,
    "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS": 2,
    "MODEL.QUERYPOSE.NUM_QUERIES": 12,
    "MODEL.QUERYPOSE.NUM_STAGES": 2,
}


@pytest.fixture
def tiny_cfg() -> Callable[..., CfgNode]:
    """``tiny_cfg({"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True})``: a config of a very small model."""

    def build(changes: dict[str, object] | None = None) -> CfgNode:
        options = [item for pair in (_TINY | (changes or {})).items() for item in pair]
        return read_config(REPOSITORY / "configs" / "Base-QueryPose.yaml", options)

    return build


@pytest.fixture
def tiny_model(tiny_cfg: Callable[..., CfgNode]) -> Callable[..., nn.Module]:
    """The freshly initialised, seeded model of such a config, in training mode."""

    def build(changes: dict[str, object] | None = None, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return build_model(tiny_cfg(changes))

    return build


_SMALL = {
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.QUERYPOSE.HIDDEN_DIM": 16,
    "MODEL.QUERYPOSE.PART_DIM": 16,
    "MODEL.QUERYPOSE.FFN_DIM": 32,
    "MODEL.QUERYPOSE.DYNAMIC_DIM": 8,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 6,
}


@pytest.fixture
def small_model(tiny_model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A tiny model made smaller still, for tests that need no golden weights."""

    def build(changes: dict[str, object] | None = None, seed: int = 0) -> nn.Module:
        return tiny_model(_SMALL | (changes or {}), seed)

    return build
