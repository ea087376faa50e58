"""What needs a GPU: ``pytest --device cuda tests/test_gpu.py``; skipped without one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from querypose.inference.predictor import PosePredictor


@pytest.fixture
def gpu(device) -> str:
    if device == "cpu":
        pytest.skip("no GPU is asked for (--device cuda)")
    return device


@pytest.fixture
def photo() -> np.ndarray:
    """A person's face and shoulders; scikit-image has it, in the public domain."""
    return pytest.importorskip("skimage.data").astronaut()


def test_a_gpu_finds_what_a_processor_finds(gpu, photo):
    ours, theirs = (PosePredictor(device=name)(photo) for name in (gpu, "cpu"))
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    np.testing.assert_allclose(ours.keypoints[..., :2], theirs.keypoints[..., :2], atol=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_finds_the_same_person(gpu, photo, precision):
    whole = PosePredictor(device=gpu)(photo)
    half = PosePredictor(device=gpu, precision=precision)(photo)
    assert half.scores[0] == pytest.approx(whole.scores[0], abs=0.05)
    shift = np.linalg.norm(half.keypoints[0, :5, :2] - whole.keypoints[0, :5, :2], axis=1)
    assert shift.max() < 10  # pixels, of the face


def test_a_batch_on_a_gpu_equals_single_images(gpu, photo):
    predict = PosePredictor(device=gpu)
    single = predict(photo)
    for one in predict([photo] * 3):
        np.testing.assert_allclose(one.scores, single.scores, atol=1e-4)


@pytest.mark.parametrize("amp", ["False", "True"])
def test_a_training_on_a_gpu(gpu, repository, tmp_path, amp):
    command = [
        *(sys.executable, "train_net.py", "--config-file", "configs/quick/tiny.yaml"),
        *("MODEL.DEVICE", gpu, "SOLVER.MAX_ITER", "10", "SOLVER.AMP.ENABLED", amp),
        *("TEST.EVAL_PERIOD", "10", "OUTPUT_DIR", str(tmp_path)),
    ]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    model = torch.load(tmp_path / "model_final.pth", map_location="cpu", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in model.values())
