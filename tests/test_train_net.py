"""train_net.py as its users call it."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from querypose.skeleton import COCO_SKELETON

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
    assert "SOLVER.MAX_ITER is 40 in the config, but was 20" in (output / "log.txt").read_text()
    assert saved_iteration(output) == 39
    assert any("keypoints/AP" in line for line in metrics(output))

    weights = ("MODEL.WEIGHTS", str(output / "model_final.pth"))
    evaluated = train_net("--eval-only", *TINY, *weights, "TEST.AUG.ENABLED", "True")
    assert evaluated.returncode == 0, evaluated.stderr
    assert (evaluated.stdout + evaluated.stderr).count("Evaluation results for keypoints") == 2
    once, averaged = (
        json.loads(
            (folder / "inference/synthetic_people_tiny/coco_instances_results.json").read_text()
        )
        for folder in (output, output / "TTA")
    )
    assert once and averaged and once != averaged


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


QUICK = ("--config-file", "configs/quick/tiny.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--eval-only",), "name a config with --config-file, such as quick/tiny"),
        ((*QUICK, "--eval-only"), "There are no weights to evaluate: name a file in MODEL.WEIGHTS"),
        ((*QUICK, "--eval-only", "--resume"), "or pass --resume for the last checkpoint of"),
        (
            (*QUICK, "DATASETS.TRAIN", "('synthetic_people_tny',)"),
            "registered as 'synthetic_people_tny', which DATASETS.TRAIN names: add [name, JSON, "
            "image folder] to DATASETS.REGISTER. Did you mean 'synthetic_people_tiny'?",
        ),
        (
            (*QUICK, "SEED", "1", "--num-gpus", "2"),
            "Non-existent key: --num-gpus; options of the command come before the config's keys",
        ),
        ((*QUICK, "MODEL.DEVICE", "gpu"), "another of PyTorch's devices, not 'gpu'."),
    ],
    ids=["no_config", "no_weights", "no_checkpoint", "dataset", "late_option", "device"],
)
def test_mistakes_that_are_seen_before_anything_starts(
    repository, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(repository)
    if "configs/quick/tiny.yaml" in arguments:
        arguments = (*arguments, "OUTPUT_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["train_net.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path("train_net.py", run_name="__main__")
    output = capsys.readouterr().err if end.value.code == 2 else str(end.value)
    assert message in output
    assert "train_net.py: " in output


@pytest.fixture
def two_processes(repository, tmp_path):
    """Starts a training of two processes; returns the parent."""
    started = []

    def start(*options: str):
        command = [sys.executable, "train_net.py", *QUICK, "--num-gpus", "2", "--dist-url", "auto"]
        output = ("OUTPUT_DIR", str(tmp_path / "output"), "DATASETS.TEST", "()")
        with (tmp_path / "log.txt").open("w") as log:
            started.append(
                subprocess.Popen(
                    [*command, *TINY, *output, *options],
                    cwd=repository,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_sigterm_to_the_parent_of_two_processes_saves_and_exits(two_processes, tmp_path):
    last = tmp_path / "output" / "last_checkpoint"
    parent = two_processes("SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.MAX_ITER", "100000")
    while not last.exists():
        assert parent.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.1)
    parent.terminate()
    assert parent.wait(timeout=120) == 0
    stopped = re.search(r"SIGTERM after iteration (\d+)", (tmp_path / "log.txt").read_text())
    assert last.read_text() == f"model_{int(stopped[1]):07d}.pth"


def test_keypoints_without_a_partner_are_in_the_log(train_net, tmp_path):
    category = {"id": 1, "name": "horse", "keypoints": ["muzzle", "poll", "dock"]}
    image = {"id": 1, "file_name": "1.png", "width": 8, "height": 8}
    content = {"images": [image], "annotations": [], "categories": [category]}
    (tmp_path / "horses.json").write_text(json.dumps(content))
    register = repr([["horses", str(tmp_path / "horses.json"), str(tmp_path)]])
    train_net("DATASETS.REGISTER", register, "DATASETS.TRAIN", "('horses', 'no_such_dataset')")
    log = (tmp_path / "output" / "log.txt").read_text()
    assert log.count("WARNING: No flip pair was found for the keypoints 'muzzle', 'poll'") == 1


@pytest.mark.slow
def test_a_missing_image_ends_both_processes_with_its_name(two_processes, tmp_path):
    """The one that finds it does not wait for its data workers, nor the other one for it."""
    image = {"id": 1, "file_name": "gone.jpg", "width": 90, "height": 60}
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 40, 40], "iscrowd": 0}
    person |= {"num_keypoints": 17, "keypoints": [20, 20, 2] * 17}
    content = {"images": [image], "annotations": [person]}
    content["categories"] = [{"id": 1, "name": "person", "keypoints": COCO_SKELETON.keypoints}]
    (tmp_path / "people.json").write_text(json.dumps(content))
    register = repr([["gone", str(tmp_path / "people.json"), str(tmp_path)]])
    options = ("DATASETS.REGISTER", register, "DATASETS.TRAIN", "('gone',)")
    parent = two_processes(*options, "DATALOADER.NUM_WORKERS", "1")
    assert parent.wait(timeout=300) == 1
    message = (tmp_path / "log.txt").read_text().strip().splitlines()[-1]
    assert message.startswith("train_net.py: FileNotFoundError: There is no image")
    assert "gone.jpg" in message and "querypose-check" in message


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_r50_light_on_real_images(train_net, real_data, tmp_path):
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
