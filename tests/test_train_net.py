"""train_net.py as its users call it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import pytest
import torch

TINY = (
    *("MODEL.QUERYPOSE.NUM_QUERIES", "8", "INPUT.MIN_SIZE_TRAIN", "(96,)"),
    *("INPUT.MIN_SIZE_TEST", "96", "SOLVER.IMS_PER_BATCH", "2", "TEST.EVAL_PERIOD", "0"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.CHECKPOINT_PERIOD", "1000"),
)


@pytest.fixture
def train_net(repository, tmp_path):
    """Runs the command; returns the finished process."""

    def run(*arguments: str, config: str = "configs/quick/tiny.yaml", timeout: float = 500):
        return subprocess.run(
            [
                *(sys.executable, "train_net.py", "--config-file", config),
                *arguments,
                *("OUTPUT_DIR", str(tmp_path / "output")),
            ],
            cwd=repository,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def metrics(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def saved_iteration(folder) -> int:
    checkpoint = torch.load(folder / "model_final.pth", map_location="cpu", weights_only=True)
    return checkpoint["iteration"]


def test_generated_people_train_save_resume_and_evaluate(train_net, tmp_path):
    output = tmp_path / "output"
    first = train_net(*TINY, "SOLVER.MAX_ITER", "20")
    assert first.returncode == 0, first.stderr
    assert (output / "last_checkpoint").read_text() == "model_final.pth"
    assert saved_iteration(output) == 19

    second = train_net("--resume", *TINY, "SOLVER.MAX_ITER", "40", "TEST.EVAL_PERIOD", "40")
    assert second.returncode == 0, second.stderr
    assert "Starting training from iteration 20" in second.stdout + second.stderr
    assert saved_iteration(output) == 39
    assert any("keypoints/AP" in line for line in metrics(output))

    evaluated = train_net("--eval-only", *TINY, "MODEL.WEIGHTS", str(output / "model_final.pth"))
    assert evaluated.returncode == 0, evaluated.stderr
    assert "Evaluation results for keypoints" in evaluated.stdout + evaluated.stderr


@pytest.mark.parametrize("name", ["lite0", "keypoint_rcnn_lite0"])
def test_the_small_model_and_its_peer_train(train_net, tmp_path, name):
    options = (
        *("DATASETS.TRAIN", "('synthetic_people_tiny',)", "DATASETS.TEST", "()"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "3", "DATALOADER.NUM_WORKERS", "0"),
    )
    done = train_net(*options, config=f"configs/quick/{name}.yaml")
    assert done.returncode == 0, done.stderr
    assert saved_iteration(tmp_path / "output") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("MODEL.QUERYPOSE.NUM_QUERRIES", "3"), "did you mean MODEL.QUERYPOSE.NUM_QUERIES?"),
        ((*TINY, "MODEL.WEIGHTS", "missing.pth"), "There is no checkpoint file missing.pth"),
    ],
    ids=["unknown_key", "missing_weights"],
)
def test_mistakes_are_told_in_one_sentence(train_net, arguments, message):
    failed = train_net(*arguments)
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith("train_net.py: ")
    assert message in failed.stderr.strip().splitlines()[-1]


def test_a_missing_config_is_named(train_net):
    failed = train_net(config="configs/none.yaml")
    assert failed.returncode == 1
    assert "There is no config file configs/none.yaml." in failed.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_r50_light_on_real_pictures(train_net, real_data, tmp_path):
    """The published model at a small size: 20 iterations, saved, resumed, evaluated."""
    folder = real_data / "coco_person"
    splits = [
        [f"person_{split}", str(folder / "annotations" / f"person_keypoints_{split}.json"),
         str(folder / split)]
        for split in ("train", "val")
    ]  # fmt: skip
    small = (
        *("DATASETS.REGISTER", repr(splits), "DATASETS.TRAIN", "('person_train',)"),
        *("DATASETS.TEST", "('person_val',)", "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""),
        *("MODEL.QUERYPOSE.NUM_QUERIES", "2", "INPUT.CROP.ENABLED", "False"),
        *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
        # A quarter of the keypoint stages' cost, which is nearly all of it.
        *("MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION", "7"),
        *("SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "1"),
        *("SOLVER.CHECKPOINT_PERIOD", "1000"),
    )
    # A busy machine needs longer than the other tests' models do.
    run = partial(train_net, config="configs/coco/querypose_r50_light_3x.yaml", timeout=1700)
    # Detectron2 evaluates at every end, which is the longer part.
    first = run(*small, "SOLVER.MAX_ITER", "10", "DATASETS.TEST", "()")
    assert first.returncode == 0, first.stderr
    second = run("--resume", *small, "SOLVER.MAX_ITER", "20")
    assert second.returncode == 0, second.stderr
    output = tmp_path / "output"
    assert saved_iteration(output) == 19
    assert any("keypoints/AP" in line for line in metrics(output))
