"""Two small trainings, compared by the command."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.skeleton import COCO_SKELETON, Skeleton
from querypose.tools.benchmark.cost import Cost
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.worker import Measurement
from querypose.tools.compare_trainings.__main__ import main
from querypose.tools.compare_trainings.checks import check_trainings
from querypose.tools.compare_trainings.comparison import Row, compare, comparison_table
from querypose.tools.compare_trainings.training import Training

_OPTS = (
    *("SOLVER.IMS_PER_BATCH", "1", "SOLVER.WARMUP_ITERS", "0", "TEST.EVAL_PERIOD", "4"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.EMA.ENABLED", "True", "SOLVER.CHECKPOINT_PERIOD", "4"),
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, repository):
    """The folder of a comparison that began with fewer images and one of the configs."""
    folder = tmp_path_factory.mktemp("compared")
    other = folder / "fewer_queries.yaml"
    other.write_text(
        f"_BASE_: {repository}/configs/quick/tiny.yaml\nMODEL: {{QUERYPOSE: {{NUM_QUERIES: 5}}}}\n"
    )
    output = folder / "output"
    main([str(output), "--config-files", "quick/tiny", "--images", "4", "--opts", *_OPTS])
    both = ("--config-files", "quick/tiny", str(other), "--jobs", "2")
    main([str(output), *both, "--images", "8", "--opts", *_OPTS])
    return output


def table_rows(table: str) -> list[dict[str, str]]:
    header, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
    )
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_the_table_has_a_row_per_config(compared):
    rows = table_rows((compared / "table.md").read_text())
    assert [row["config"] for row in rows] == ["tiny", "fewer_queries"]
    for row in rows:
        assert row["images seen"] == "8"
        assert float(row["ms per image"]) > 0 and float(row["training images/s"]) > 0
        assert 0 <= float(row["duplicates %"]) <= 100
    assert rows[0]["M parameters"] >= rows[1]["M parameters"]
    [*_, last] = tiny(compared).curve()
    assert float(rows[0]["AP"]) == pytest.approx(last.metrics["keypoints/AP"], abs=0.05)
    assert float(rows[0]["box AP"]) == pytest.approx(last.metrics["bbox/AP"], abs=0.05)


def test_several_seeds_are_a_mean_and_half_their_range():
    metrics = {"AP": [10.0, 14.0], "AR": [20.04, 20.0], "score-OKS correlation": [0.58, 0.66]}
    measurement = Measurement(
        Setting("quick/tiny"),
        seconds={"total": 0.0501},
        data_seconds=None,
        peak_bytes=0,
        cost=Cost(1_200_000, 0),
    )
    row = Row("tiny", 8000, metrics, images_per_second=3.14, measurement=measurement)
    [cells] = table_rows(comparison_table([row]))
    assert cells == {
        "config": "tiny",
        "images seen": "8,000",
        "AP": "12.0 ± 2.0",
        "AR": "20.0 ± 0.0",
        "score-OKS correlation": "0.62 ± 0.04",
        "M parameters": "1.2",
        "ms per image": "50",
        "training images/s": "3.1",
    }


def test_a_model_that_predicts_nobody_has_a_row(compared, tmp_path):
    shutil.copytree(compared / "tiny", tmp_path / "tiny")
    training = tiny(tmp_path)
    training.results_file().write_text("[]")
    table = comparison_table(compare([[training]]))
    [row] = table_rows(table)
    assert row["AP"] == row["box AP"] == row["duplicates %"] == "0.00"
    assert row["score-OKS correlation"] == "-"


def test_a_test_set_without_labeled_keypoints_has_no_metrics(
    label_content, register_labels, tmp_path
):
    content = label_content(COCO_SKELETON.keypoints)
    for person in content["annotations"]:
        person |= {"keypoints": [0] * 51, "num_keypoints": 0}
    name = register_labels(content)
    training = Training("quick/tiny", 1, 8, tmp_path / "out", ("DATASETS.TEST", f"('{name}',)"))
    training.results_file().parent.mkdir(parents=True)
    found = {"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": [50, 50, 1] * 17}
    training.results_file().write_text(json.dumps([found]))
    evaluated = {"iteration": 8, "keypoints/AP": math.nan, "bbox/AP": 5.0}
    (training.folder / "metrics.json").write_text(json.dumps(evaluated))
    [row] = table_rows(comparison_table(compare([[training]])))
    assert row["box AP"] == "5.0"
    assert row["AP"] == row["AP50"] == row["AR"] == row["duplicates %"] == "-"


def tiny(output: Path) -> Training:
    return Training("quick/tiny", 1, 8, output / "tiny" / "seed_1", _OPTS)


def test_curves_are_of_the_averaged_weights_at_every_evaluation(compared):
    training = tiny(compared)
    assert [point.num_images for point in training.curve()] == [4, 8]
    assert {"keypoints/AP", "bbox/AP"} <= training.curve()[-1].metrics.keys()
    assert training.results_file().parts[-4] == "ema"
    plot = cv2.imread(str(compared / "curves.png"))
    assert plot is not None and plot.std() > 10


def test_a_finished_training_is_left_alone(compared):
    training = tiny(compared)
    before = (training.folder / "log.txt").read_bytes()
    training.run(num_threads=1)
    assert (training.folder / "log.txt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "4"], "has seen 8 images: name as many by --images"),
        (["--images", "8", "--opts", "SOLVER.BASE_LR", "1e-5"], "other settings: SOLVER.BASE_LR"),
    ],
)
def test_a_folder_of_another_training_is_refused(compared, arguments, sentence):
    command, opts = arguments[:2], arguments[3:]
    with pytest.raises(SystemExit, match=sentence):
        main([str(compared), "--config-files", "quick/tiny", *command, "--opts", *_OPTS, *opts])


@pytest.fixture
def begin(label_content, write_labels, tmp_path):
    """``begin(folder)``: begins or continues one comparison on the files of a folder."""
    name = f"compared_{tmp_path.name}"
    write_labels(label_content())
    (tmp_path / "weights.pth").write_bytes(b"weights")

    def check(folder, *opts, skeleton=""):
        dataset = [name, str(folder / "people.json"), str(folder), *filter(None, [skeleton])]
        files = ("DATASETS.REGISTER", str([dataset]), "MODEL.WEIGHTS", str(folder / "weights.pth"))
        names = ("DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)")
        training = Training("quick/tiny", 1, 8, tmp_path / "output", (*files, *names, *opts))
        try:
            check_trainings([training])
        finally:
            # The next command registers it again.
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)

    check(tmp_path)
    return check


@pytest.fixture
def moved(begin, tmp_path):
    """A copy of the files of a begun comparison."""
    folder = tmp_path / "moved"
    folder.mkdir()
    for file in ("people.json", "1.png", "2.png", "weights.pth"):
        shutil.copy(tmp_path / file, folder)
    return folder


def test_a_comparison_goes_on_wherever_its_files_are(begin, moved):
    begin(moved, "MODEL.DEVICE", "cuda", "DATALOADER.NUM_WORKERS", "0")
    with pytest.raises(ValueError, match=r"other settings: SOLVER\.BASE_LR is 0\.5, but"):
        begin(moved, "SOLVER.BASE_LR", "0.5")


def test_a_comparison_does_not_go_on_with_other_weights(begin, moved):
    (moved / "weights.pth").write_bytes(b"others")
    with pytest.raises(ValueError, match="other settings: content of the weights is"):
        begin(moved)


def test_a_comparison_does_not_go_on_with_other_labels(begin, moved, label_content):
    (moved / "people.json").write_text(json.dumps(label_content() | {"info": {}}))
    with pytest.raises(ValueError, match=r"other settings: content of the labels of compared_"):
        begin(moved)


def test_a_comparison_does_not_go_on_with_other_images_or_flips(begin, moved, label_content):
    skeleton = moved / "skeleton.yaml"
    skeleton.write_text(
        Skeleton(tuple(label_content()["categories"][0]["keypoints"]), flips=()).to_yaml()
    )
    with pytest.raises(ValueError, match=r"other settings: .*skeleton of compared_"):
        begin(moved, skeleton=str(skeleton))
    shutil.copy(moved / "1.png", moved / "2.png")
    with pytest.raises(ValueError, match=r"other settings: images of compared_"):
        begin(moved)


@pytest.mark.slow
def test_a_stopped_comparison_stops_its_trainings_and_goes_on(tmp_path, repository):
    arguments = ("--config-files", "quick/tiny", "--images", "400", "--opts", *_OPTS)
    command = [sys.executable, "-m", "querypose", "compare_trainings", str(tmp_path), *arguments]
    folder = tmp_path / "tiny" / "seed_1"
    with subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) as running:
        while not (folder / "last_checkpoint").exists():
            assert running.poll() is None
            time.sleep(0.5)
        running.terminate()
        assert "stopped; the same command goes on" in running.communicate()[1]
    reached = int((folder / "last_checkpoint").read_text().split("_")[-1].split(".")[0]) + 1
    assert reached < 400
    images = str(reached + 1)
    main([str(tmp_path), *arguments[:3], images, *arguments[4:]])
    assert f"Starting training from iteration {reached}" in (folder / "log.txt").read_text()


@pytest.mark.slow
def test_a_training_that_fails_says_why_and_no_other_begins(tmp_path, capfd):
    arguments = ("--config-files", "quick/tiny", "--images", "4", "--seeds", "1", "2", "3")
    with pytest.raises(SystemExit, match=r"seed_1 failed: see its message above"):
        main([str(tmp_path), *arguments, "--opts", *_OPTS, "SOLVER.BASE_LR", "1e30"])
    assert "lower SOLVER.BASE_LR" in capfd.readouterr().err
    assert not (tmp_path / "tiny" / "seed_3" / "log.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config-files", "quick/tyny"], "Did you mean quick/tiny"),
        (["--config-files", "quick/tiny", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--config-files", "quick/tiny", "--images", "0"], "--images must be at least 1, got 0"),
        (["--opts", "MODEL.WEIGHTS", "missing.pth"], "There is no checkpoint file missing.pth"),
        (["--config-files", "quick/tiny", "--opts", "DATASETS.TRAIN", "('nobody',)"], "nobody"),
        (["--config-files", "quick/tiny", "--opts", "DATASETS.TEST", "()"], "names no dataset"),
        (["--config-files", "quick/tiny", "--opts", "SEED", "7"], "SEED follows from --seeds"),
        (["--config-files", "quick/tiny", "quick/tiny"], "would train in the same folder"),
        (["--images", "16"], "querypose_lite0 freezes the batch norms of .* random weights"),
    ],
)
def test_mistakes_are_found_before_the_first_training(arguments, sentence, tmp_path):
    with pytest.raises(SystemExit, match=sentence):
        main([str(tmp_path), *arguments])
    assert not any(tmp_path.iterdir())
