"""Swin backbones: files for one size of images, and batches of any size."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model

from querypose.config import read_config
from querypose.export import OnnxDetector
from querypose.export.onnx_export import ExportSettings, write_onnx

# An export takes a minute.
pytestmark = pytest.mark.slow

# Neither the stride nor the attention windows divide it.
_SIZE = (200, 300)
_QUERIES = 8
_SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.SWIN.EMBED_DIM": 24,
    # Every second block of a stage shifts its windows.
    "MODEL.SWIN.DEPTHS": [2, 2, 1, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 2, 2],
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.QUERYPOSE.HIDDEN_DIM": 32,
    "MODEL.QUERYPOSE.PART_DIM": 32,
    "MODEL.QUERYPOSE.FFN_DIM": 32,
    "MODEL.QUERYPOSE.NUM_STAGES": 2,
    "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS": 2,
    "MODEL.QUERYPOSE.NUM_QUERIES": _QUERIES,
    "MODEL.QUERYPOSE.PROPOSALS": "grid",
}


@pytest.fixture(scope="module")
def case(tmp_path_factory, exports, settle):
    cfg = read_config("coco/querypose_swin_t_light_6x", [i for kv in _SMALL.items() for i in kv])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    settle(model, torch.stack([exports.draw((128, 160), seed) for seed in range(2)]))
    path = tmp_path_factory.mktemp("swin") / "model.onnx"
    write_onnx(model, cfg, path, ExportSettings(max_people=_QUERIES, size=_SIZE))
    return SimpleNamespace(model=model, detector=OnnxDetector(path))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_onnxruntime_equals_pytorch(batch_size, case, exports):
    assert exports.assert_equal(case.detector, case.model, _SIZE, batch_size, 0.0) > 0


def test_another_size_is_refused(case, exports):
    message = "takes images of 200 x 300 pixels (height x width), not of 300 x 200."
    with pytest.raises(ValueError, match=re.escape(message)):
        case.detector.people(exports.draw((300, 200))[None].numpy())
