"""QueryPose in its published sizes: onnxruntime finds what PyTorch finds."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from querypose.config import read_config
from querypose.export import OnnxDetector
from querypose.export.onnx_export import ExportSettings, write_onnx
from querypose.export.verification import compare
from querypose.inference.acceleration import prepare_for_inference
from querypose.modeling.pose_model import PeopleBatch, PoseModel

# An export takes minutes, and a comparison a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# With the number of queries.
CASES = {
    "ResNet-50, light": ("coco/querypose_r50_light_3x", 100),
    "ResNet-50, full": ("coco/querypose_r50_3x", 12),
    "HRNet-W32, light": ("coco/querypose_hrnet_w32_light_6x", 100),
}
_MAX_PEOPLE = 12
# Gray levels; rounding to float32 is a hundred times finer.
_NOISE = 1e-3


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory, exports, settle):
    config, num_queries = CASES[request.param]
    cfg = read_config(config, _options(num_queries))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    images = torch.stack([exports.draw((160, 192), seed) for seed in range(2)])
    settle(model, images)
    prepare_for_inference(model, cfg)
    _check_condition(model, images)
    path = tmp_path_factory.mktemp("case") / "model.onnx"
    write_onnx(model, cfg, path, ExportSettings(max_people=_MAX_PEOPLE))
    yield SimpleNamespace(model=model, detector=OnnxDetector(path))
    # A file has a gigabyte, and pytest keeps those of three sessions.
    path.unlink()
    gc.collect()


def _options(num_queries: int) -> list[Any]:
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.QUERYPOSE.NUM_QUERIES": num_queries,
        # Queries that start from the whole image would stay alike without a training.
        "MODEL.QUERYPOSE.PROPOSALS": "grid",
        "TEST.DETECTIONS_PER_IMAGE": _MAX_PEOPLE,
        "MODEL.INFERENCE.WINOGRAD_MEMORY": 0.0,
    }
    return [item for pair in options.items() for item in pair]


@torch.no_grad()
def _people(model: PoseModel, images: Tensor) -> PeopleBatch:
    sizes = torch.tensor([images.shape[2:]] * len(images)).float()
    return model.detect_at_most(model.preprocess_tensor(images), sizes, _MAX_PEOPLE)


def _check_condition(model: PoseModel, images: Tensor) -> None:
    """Whether a comparison of this model means something.

    Errors like those of rounding move nobody, whereas another image has other people, who differ
    from each other.
    """
    images = images.float()
    people = _people(model, images)
    noised = compare(people, _people(model, images + _NOISE * torch.randn_like(images)))
    assert noised.pixels < 0.05 and noised.scores < 5e-4
    first, second = (PeopleBatch(*(field[index, None] for field in people)) for index in (0, 1))
    assert compare(first, second).pixels > 1
    places = people.keypoints[..., :2].flatten(2)
    apart = torch.cdist(places, places, p=torch.inf)
    assert (apart > 1).sum(dim=2).eq(_MAX_PEOPLE - 1).all()
    assert people.scores.max() > 3 * people.scores.min()


@torch.no_grad()
def _highest_of_others(model: PoseModel, images: Tensor) -> float:
    """The highest class score of a query that a file does not decode.

    People above it are PyTorch's, which decodes as many queries as it takes.
    """
    features = model._features(model.preprocess_tensor(images))
    sizes = torch.tensor([images.shape[2:]] * len(images)).float()
    scores = model.decoder(features, sizes)[-1].logits.sigmoid()[..., 0]
    others = scores.sort(dim=1, descending=True).values[:, _MAX_PEOPLE:]
    return float(others.max()) if others.numel() else 0.0


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("index", range(3))
def test_onnxruntime_equals_pytorch(index, batch_size, case, exports):
    size = exports.sizes[index]
    images = torch.stack([exports.draw(size, seed) for seed in range(batch_size)])
    threshold = _highest_of_others(case.model, images)
    assert exports.assert_equal(case.detector, case.model, size, batch_size, threshold) > 0
