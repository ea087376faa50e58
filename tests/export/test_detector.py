"""What a file answers becomes Detectron2's people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from querypose.export import OnnxDetector
from querypose.export.verification import compare
from querypose.modeling.pose_model import PeopleBatch

ANSWER = {
    "boxes": np.array([[[1, 2, 11, 22], [3, 4, 13, 24], [0, 0, 0, 0]]], dtype=np.float32),
    "scores": np.array([[0.9, 0.4, 0]], dtype=np.float32),
    "keypoints": np.ones((1, 3, 5, 3), dtype=np.float32),
    "valid": np.array([[True, True, False]]),
    "classes": np.array([[1, 0, 1]]),
}


def write_file(path: Path, answer: dict[str, np.ndarray]) -> Path:
    """An ONNX file that gives one answer for any image."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 3, 32, 32])
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in answer.items()]
    nodes = [onnx.helper.make_node("Constant", [], [each.name], value=each) for each in tensors]
    outputs = [
        onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in tensors
    ]
    graph = onnx.helper.make_graph(nodes, "constants", [image], outputs)
    opset = onnx.helper.make_opsetid("", 18)
    proto = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    fields = {"format": "querypose-onnx-1", "input_type": "uint8", "size": None}
    for name, value in fields.items():
        proto.metadata_props.add(key=name, value=json.dumps(value))
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("left_out", [(), ("classes",)], ids=["today", "earlier file"])
def test_everybody_has_a_class(left_out, tmp_path):
    answer = {name: value for name, value in ANSWER.items() if name not in left_out}
    detector = OnnxDetector(write_file(tmp_path / "model.onnx", answer))
    given = {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "score_threshold": 0.1}
    people = detector([given])[0]["instances"]
    assert people.pred_classes.tolist() == ([0, 0] if left_out else [1, 0])
    assert people.pred_classes.dtype == torch.int64
    assert people.scores.tolist() == pytest.approx([0.9, 0.4])
    assert people.pred_boxes.tensor.tolist() == ANSWER["boxes"][0, :2].tolist()


def test_people_of_another_class_are_infinitely_far():
    answer = PeopleBatch(**{name: torch.from_numpy(value) for name, value in ANSWER.items()})
    assert compare(answer, answer).pixels == 0
    assert compare(answer._replace(classes=answer.classes * 0), answer).pixels == np.inf
