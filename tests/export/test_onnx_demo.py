"""demo/onnx_demo.py gives the product's answers without the product."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from querypose.cli.demo import main as querypose_demo
from querypose.cli.export import main as export

# An export takes a minute.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "lite0.onnx"
    export(["--output", str(path)])
    return path


@pytest.fixture
def run(model, repository):
    def run(source, output, *options):
        command = [sys.executable, repository / "demo" / "onnx_demo.py", model, source, output]
        return subprocess.run([*command, *options], capture_output=True, text=True)

    return run


def _draw_people(path, exports, size):
    cv2.imwrite(str(path), exports.draw(size).permute(1, 2, 0).numpy()[..., ::-1])


@pytest.mark.parametrize("size", [(300, 420), (500, 700), (620, 240)])
def test_an_image_has_the_people_of_querypose_demo(size, run, exports, tmp_path):
    """Enlarged, shrunk, and limited by its longest edge."""
    photo, drawn, mine = (tmp_path / name for name in ("a.png", "drawn.png", "mine.png"))
    _draw_people(photo, exports, size)
    querypose_demo([str(photo), "--output", str(drawn), "--save-json", str(tmp_path / "a.json")])
    done = run(photo, mine, "--save-json", tmp_path / "mine.json")
    assert done.returncode == 0, done.stderr
    (frame,) = json.loads((tmp_path / "a.json").read_text())["frames"]
    (people,) = json.loads((tmp_path / "mine.json").read_text())["frames"]
    assert len(people) == len(frame["people"]) > 0
    for person, expected in zip(people, frame["people"], strict=True):
        assert person["score"] == pytest.approx(expected["score"], abs=2e-3)
        places = np.array([keypoint[:2] for keypoint in person["keypoints"]])
        reference = np.array([keypoint[:2] for keypoint in expected["keypoints"].values()])
        # The JSON of the product is rounded to 0.01, and resizing may differ by one gray level.
        np.testing.assert_allclose(places, reference, atol=0.3)
    difference = np.abs(cv2.imread(str(mine)).astype(int) - cv2.imread(str(drawn)).astype(int))
    assert (difference.max(axis=2) > 8).mean() < 0.003


def test_a_video_keeps_its_frames(run, exports, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (256, 192)
    )
    for seed in range(3):
        image = exports.draw((192, 256), seed).permute(1, 2, 0).numpy()[..., ::-1]
        writer.write(np.ascontiguousarray(image))
    writer.release()
    done = run(tmp_path / "a.mp4", tmp_path / "b.mp4", "--save-json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "b.json").read_text())["frames"]) == 3
    video = cv2.VideoCapture(str(tmp_path / "b.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("text.png", "b.png", "is no image that OpenCV reads"),
        ("nowhere.mp4", "b.mp4", "is no video that OpenCV reads"),
        ("photo.png", "nowhere/b.png", "there is no folder"),
        ("photo.png", "photo.png", "is the input: name another output"),
        ("photo.png", "b.unknown", "cannot write"),
    ],
)
def test_wrong_files_are_told_in_one_sentence(source, output, message, run, exports, tmp_path):
    (tmp_path / "text.png").write_text("text")
    _draw_people(tmp_path / "photo.png", exports, (96, 96))
    done = run(tmp_path / source, tmp_path / output)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("onnx_demo:")]
    assert message in line


def test_a_missing_model_is_told(repository, tmp_path):
    command = [sys.executable, repository / "demo" / "onnx_demo.py", tmp_path / "nowhere.onnx"]
    done = subprocess.run([*command, "a.png", "b.png"], capture_output=True, text=True)
    assert done.returncode == 1 and "there is no file" in done.stderr


def test_it_needs_three_packages(repository):
    tree = ast.parse((repository / "demo" / "onnx_demo.py").read_text())
    imported = {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name for name in imported | froms if name not in sys.stdlib_module_names}
    assert foreign == {"cv2", "numpy", "onnxruntime"}
