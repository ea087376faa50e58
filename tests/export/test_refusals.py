"""What cannot be exported says so in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from detectron2.modeling import build_model

from querypose.cli.export import main
from querypose.config import read_config
from querypose.modeling.pose_model import PoseModel


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-people", "0"], "max_people is at least 1, not 0"),
        (["--size", "0", "64"], "Height and width are at least 1 pixel"),
        (["--config-file", "no_such_config"], "no_such_config"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_wrong_arguments_end_the_command(options, message, tmp_path):
    output = tmp_path / "model.onnx"
    with pytest.raises(SystemExit, match=message):
        main(["--output", str(output), *options])
    assert not output.exists()


def test_wrong_targets_end_the_command_before_the_work(tmp_path):
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"weights")
    with pytest.raises(SystemExit, match="is a folder, so no file can go there"):
        main(["--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="would replace an input"):
        main(["--output", str(weights), "--weights", str(weights)])
    assert weights.read_bytes() == b"weights"


@pytest.mark.parametrize("missing", ["onnxscript", "onnxruntime"])
def test_the_missing_extra_is_named(missing, tmp_path):
    """In a process of its own, in which Python does not find the package."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from querypose.cli.export import main; "
        f"main(['--output', {str(tmp_path / 'model.onnx')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert f"needs {missing}" in line and "pip install 'querypose[onnx]'" in line


def test_a_file_of_somebody_else_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    from querypose.export import OnnxDetector

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "identity", [value], [result])
    path = tmp_path / "identity.onnx"
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    with pytest.raises(ValueError, match="says nothing of its model"):
        OnnxDetector(path)
    with pytest.raises(FileNotFoundError, match="There is no ONNX file"):
        OnnxDetector(tmp_path / "nowhere.onnx")


_SWIN = (
    *("MODEL.DEVICE", "cpu", "MODEL.SWIN.EMBED_DIM", 12, "MODEL.SWIN.DEPTHS", [1, 1, 1, 1]),
    *("MODEL.SWIN.NUM_HEADS", [1, 1, 1, 1], "MODEL.FPN.OUT_CHANNELS", 16),
    *("MODEL.QUERYPOSE.HIDDEN_DIM", 16, "MODEL.QUERYPOSE.PART_DIM", 16),
    *("MODEL.QUERYPOSE.FFN_DIM", 16, "MODEL.QUERYPOSE.NUM_STAGES", 1),
    *("MODEL.QUERYPOSE.NUM_QUERIES", 4, "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION", 4),
)


def test_a_swin_needs_a_size():
    pytest.importorskip("onnxscript")
    from querypose.export.graph import build_graph

    model = build_model(read_config("coco/querypose_swin_t_light_6x", _SWIN)).eval()
    with pytest.raises(ValueError, match=r"attention windows out for one size.*pass --size"):
        build_graph(model, max_people=4)


def test_a_method_without_the_step_is_named(monkeypatch):
    pytest.importorskip("onnxscript")
    from querypose.export.graph import build_graph

    model = build_model(read_config("quick/quality_pose_lite0", ["MODEL.DEVICE", "cpu"])).eval()
    monkeypatch.setattr(type(model), "detect_at_most", PoseModel.detect_at_most)
    with pytest.raises(ValueError, match="QualityPose has no detect_at_most"):
        build_graph(model, max_people=4)


def test_an_option_that_no_graph_has_is_named():
    pytest.importorskip("onnxscript")
    from querypose.export.graph import build_graph

    options = ["MODEL.DEVICE", "cpu", "MODEL.QUALITY_POSE.TEST_SCALES", [0.5, 1.0]]
    model = build_model(read_config("quick/quality_pose_lite0", options)).eval()
    with pytest.raises(ValueError, match="TEST_SCALES: a graph looks at an image in one size"):
        build_graph(model, max_people=4)
