"""Every method and backbone: onnxruntime finds what PyTorch finds."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from querypose.config import read_config
from querypose.export import OnnxDetector
from querypose.export.onnx_export import ExportSettings, write_onnx
from querypose.inference.acceleration import prepare_for_inference

# An export takes a minute.
pytestmark = pytest.mark.slow

_SMALL_QUERYPOSE = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.QUERYPOSE.HIDDEN_DIM": 32,
    "MODEL.QUERYPOSE.NUM_ATTENTION_HEADS": 4,
    "MODEL.QUERYPOSE.FFN_DIM": 64,
    "MODEL.QUERYPOSE.DYNAMIC_DIM": 16,
    "MODEL.QUERYPOSE.PART_DIM": 32,
    "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS": 2,
    "MODEL.QUERYPOSE.NUM_QUERIES": 12,
    "MODEL.QUERYPOSE.NUM_STAGES": 2,
    "MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True,
    "MODEL.QUERYPOSE.NUM_CLASSES": 2,
}
CASES = {
    "full model, another skeleton, two classes": ("crowdpose/querypose_r50_3x", _SMALL_QUERYPOSE),
    "PINet": ("quick/pinet_lite0", {"MODEL.PINET.MAX_PEAKS": 8}),
    "QualityPose": ("quick/quality_pose_lite0", {"MODEL.QUALITY_POSE.MAX_PEAKS": 12}),
}
# As many as PyTorch returns.
_MAX_PEOPLE = 24


def _calibrate(model: nn.Module, images: torch.Tensor) -> None:
    """Gives batch norms the statistics of some images, and heads weights that find somebody."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.startswith("head.") and parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5 * parameter[0].numel() ** -0.5)
        if name.startswith(("head.score_branch.score.", "head.parts.", "head.heatmaps.")):
            nn.init.constant_(parameter, 0.2) if parameter.dim() == 1 else None
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = 1.0
    model.train()
    model.backbone(model.preprocess_tensor(images))
    model.eval()


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory, exports):
    config, changes = CASES[request.param]
    options = {"MODEL.DEVICE": "cpu", "TEST.DETECTIONS_PER_IMAGE": _MAX_PEOPLE, **changes}
    options["MODEL.INFERENCE.WINOGRAD_MEMORY"] = 0.0
    torch.manual_seed(1)
    cfg = read_config(config, [item for pair in options.items() for item in pair])
    model = build_model(cfg)
    with torch.no_grad():
        _calibrate(model, torch.stack([exports.draw((128, 160), seed) for seed in range(4)]))
    prepare_for_inference(model, cfg)
    path = tmp_path_factory.mktemp("case") / "model.onnx"
    report = write_onnx(
        model, cfg, path, ExportSettings(max_people=_MAX_PEOPLE, input_type="float32")
    )
    assert report.difference.people > 0
    return SimpleNamespace(model=model, detector=OnnxDetector(path))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("index", range(3))
def test_onnxruntime_equals_pytorch(index, batch_size, case, exports):
    size = exports.sizes[index]
    assert exports.assert_equal(case.detector, case.model, size, batch_size, 0.0) >= batch_size


def test_the_skeleton_is_in_the_file(case):
    about = case.detector.description
    assert tuple(about["keypoints"]) == case.model.skeleton.keypoints
    assert about["method"] == type(case.model).__name__
    assert json.dumps(about)
