"""The packaged model through the command, from file to people."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from querypose import PosePredictor
from querypose.cli.export import main
from querypose.export import OnnxDetector, config_of_onnx
from querypose.export.precision import halve_weights, quantize
from querypose.inference.model_loading import find_config, load_model
from querypose.tools.compare_onnx import main as compare_onnx

# QueryPose-lite0 has 30 queries: with all of them the file finds what PyTorch finds.
QUERIES = 30
THRESHOLD = 0.087


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite0") / "lite0.onnx"
    main(["--output", str(path), "--max-people", str(QUERIES)])
    cfg, _ = find_config(None, opts=["MODEL.DEVICE", "cpu", "TEST.DETECTIONS_PER_IMAGE", QUERIES])
    return SimpleNamespace(path=path, detector=OnnxDetector(path), model=load_model(cfg))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("index", range(3))
def test_it_equals_pytorch_at_any_size(index, batch_size, lite0, exports):
    size = exports.sizes[index]
    assert exports.assert_equal(lite0.detector, lite0.model, size, batch_size, 0.01) > batch_size


def test_duplicates_are_suppressed_in_the_graph(lite0, exports):
    """Somebody is found twice without it."""
    images = torch.stack([exports.draw((384, 512), seed) for seed in range(3)])
    found = lite0.detector.people(images.numpy())
    assert 0 < found.valid.sum() < 3 * QUERIES
    for scores, valid in zip(found.scores, found.valid, strict=True):
        assert (scores[valid].diff() <= 0).all() and (scores[~valid] == 0).all()
        assert not valid[int(valid.sum()) :].any()


def test_nobody_is_in_a_gray_image(lite0, has_no_people):
    assert has_no_people(lite0.detector, THRESHOLD)


def test_the_file_is_enough_to_draw_poses(lite0):
    proto = onnx.load(lite0.path)
    onnx.checker.check_model(proto, full_check=True)
    props = {prop.key: json.loads(prop.value) for prop in proto.metadata_props}
    skeleton = lite0.model.skeleton
    assert props["keypoints"] == list(skeleton.keypoints)
    assert props["edges"] == [list(edge) for edge in skeleton.edges]
    assert len(props["edge_colors"]) == len(props["edges"])
    assert props["flips"] == [list(pair) for pair in skeleton.flips]
    assert props["sigmas"] == pytest.approx(skeleton.sigmas)
    assert props["size_rule"] == {"shortest_edge": 384, "limit": 576}
    assert props["score_threshold"] == THRESHOLD
    assert props["channel_order"] == "RGB" and "Apache-2.0" in props["license"]
    assert props["method"] == "QueryPose" and props["max_people"] == QUERIES
    operators = {node.op_type for node in proto.graph.node}
    assert "RoiAlign" in operators and "Loop" not in operators
    assert {o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")} >= {18}


def test_axes_are_named_and_open(lite0):
    session = onnxruntime.InferenceSession(lite0.path, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape == ["batch", 3, "height", "width"]
    names = [output.name for output in session.get_outputs()]
    assert names == ["boxes", "scores", "keypoints", "valid", "classes"]
    assert session.get_outputs()[2].shape == ["batch", QUERIES, 17, 3]


def test_a_file_stands_in_for_a_model(lite0, exports):
    """At the size of the image, and of the original that it was resized from."""
    cfg = config_of_onnx(lite0.path, ["INPUT.MIN_SIZE_TEST", 256])
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.INPUT.MIN_SIZE_TEST) == ("QueryPose", 256)
    image = exports.draw((384, 512))
    predictor = PosePredictor.from_config(device="cpu", opts=["INPUT.MIN_SIZE_TEST", 0])
    expected = predictor(image.permute(1, 2, 0).numpy())
    given = {"image": image, "height": 768, "width": 1024, "score_threshold": THRESHOLD}
    people = lite0.detector([given])[0]["instances"]
    assert len(people) == len(expected) > 1
    places = people.pred_keypoints[..., :2].numpy()
    np.testing.assert_allclose(places / 2, expected.keypoints[..., :2], atol=0.1)


def test_half_precision_halves_the_file_and_keeps_the_poses(lite0, exports, tmp_path):
    proto = onnx.load(lite0.path)
    halve_weights(proto)
    path = tmp_path / "half.onnx"
    onnx.save(proto, path)
    assert path.stat().st_size < 0.6 * lite0.path.stat().st_size
    assert _largest_shift(path, lite0, exports) < 0.5


def test_integers_make_the_file_smaller_and_keep_people(lite0, exports, tmp_path):
    path = tmp_path / "int8.onnx"
    shutil.copy(lite0.path, path)
    quantize(path)
    onnx.checker.check_model(str(path), full_check=True)
    assert path.stat().st_size < 0.9 * lite0.path.stat().st_size
    assert OnnxDetector(path).description == lite0.detector.description
    assert _largest_shift(path, lite0, exports) < 20


def _largest_shift(path, lite0, exports):
    """Of a keypoint of a clear person, in pixels."""
    image = exports.draw((384, 512)).numpy()[None]
    found, expected = OnnxDetector(path).people(image), lite0.detector.people(image)
    clear = expected.scores[0] > 0.3
    assert clear.any()
    places = found.keypoints[0, found.valid[0], :, :2]
    distances = (expected.keypoints[0, clear, None, :, :2] - places).abs().amax(dim=(2, 3))
    return float(distances.amin(dim=1).max())


def test_the_comparison_prints_a_row_for_each(lite0, capsys):
    compare_onnx([str(lite0.path), "--rounds", "1"])
    _, _, _, pytorch, file = capsys.readouterr().out.splitlines()
    assert pytorch.startswith("| PyTorch |")
    cells = [cell.strip() for cell in file.strip("|").split("|")]
    assert cells[0] == lite0.path.name
    assert float(cells[2]) < 0.1 and float(cells[3]) < 1e-3 and float(cells[4]) > 0
