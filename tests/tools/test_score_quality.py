"""Scores and OKS of persons, compared with values computed by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.data import register_coco_keypoints
from querypose.skeleton import Skeleton
from querypose.tools import score_quality
from querypose.tools.judged_results import read_dataset_results
from querypose.tools.score_quality import RatedPersons, rate_persons

AREA = 10_000.0
SKELETON = Skeleton(keypoints=("head", "foot"), sigmas=(0.05, 0.05))


def keypoints_at(x: float) -> list[float]:
    return [x, 20.0, 2.0, x, 180.0, 2.0]


def oks_at(distance: float) -> float:
    return math.exp(-(distance**2) / (2 * AREA * 0.1**2))


@pytest.fixture
def dataset(tmp_path):
    """Two persons and one without keypoints in one image, nobody in another."""
    persons = [
        {
            "id": number,
            "image_id": 1,
            "category_id": 1,
            "bbox": [x - 25, 0, 50, 200],
            "area": AREA,
            "iscrowd": 0,
            "keypoints": keypoints_at(x) if labeled else [0.0] * 6,
            "num_keypoints": 2 if labeled else 0,
        }
        for number, x, labeled in ((1, 100, True), (2, 300, True), (3, 600, False))
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 900, "height": 200} for i in (1, 2)]
    content = {"images": images, "annotations": persons, "categories": [{"id": 1, "name": "p"}]}
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    name = f"rated_{tmp_path.name}"
    register_coco_keypoints(name, file, tmp_path, SKELETON)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def write_results(folder: Path, *found: tuple[int, float, float]) -> Path:
    """A results file with persons (image, x, score)."""
    results = [
        {"image_id": image, "category_id": 1, "keypoints": keypoints_at(x), "score": score}
        for image, x, score in found
    ]
    path = folder / "results.json"
    path.write_text(json.dumps(results))
    return path


def rate(dataset, folder, *found):
    return rate_persons(*read_dataset_results(dataset, write_results(folder, *found)))


def test_oks_is_with_the_most_similar_person(dataset, tmp_path):
    persons = rate(dataset, tmp_path, (1, 110, 0.9), (1, 295, 0.8), (1, 102, 0.7))
    assert persons.scores.tolist() == [0.9, 0.8, 0.7]
    expected = [oks_at(10), oks_at(5), oks_at(2)]
    np.testing.assert_allclose(persons.oks, expected, rtol=1e-6)
    assert persons.rank_correlation == pytest.approx(-1)
    assert persons.nearest.tolist() == [False, True, True]


def test_persons_far_from_all_labels_have_an_oks_of_zero(dataset, tmp_path):
    persons = rate(dataset, tmp_path, (1, 100, 0.9), (1, 450, 0.4), (2, 100, 0.3))
    np.testing.assert_allclose(persons.oks, [1, 0, 0], atol=1e-9)
    assert not persons.nearest[2]


def test_persons_without_labels_are_left_out(dataset, tmp_path):
    persons = rate(dataset, tmp_path, (1, 100, 0.9), (1, 600, 0.8))
    assert persons.scores.tolist() == [0.9]
    assert math.isnan(persons.rank_correlation)


def test_a_person_who_was_found_already_is_a_duplicate(dataset, tmp_path):
    """Not one of another person, and not one who resembles nobody."""
    found = ((1, 110, 0.9), (1, 290, 0.8), (1, 102, 0.7), (1, 450, 0.6), (1, 455, 0.5))
    persons = rate(dataset, tmp_path, *found)
    assert persons.duplicates.tolist() == [False, False, True, False, False]
    assert persons.best(2).duplicates.tolist() == [False, False]
    assert persons.best(2).scores.tolist() == [0.9, 0.8]


def test_means_are_taken_over_ranges_of_scores():
    scores, oks = np.array([0.92, 0.98, 0.31, 1.0]), np.array([0.9, 0.7, 0.2, 0.5])
    persons = RatedPersons(scores, oks, np.ones(4, dtype=bool), np.zeros(4, dtype=bool))
    assert persons.by_score() == [
        (pytest.approx(0.35), 1, pytest.approx(0.2)),
        (pytest.approx(0.95), 3, pytest.approx(0.7)),
    ]


def test_command_prints_and_draws(dataset, tmp_path, capsys):
    results = write_results(tmp_path, (1, 100, 0.9), (1, 305, 0.5), (2, 100, 0.1))
    score_quality.main([dataset, str(results), "--output", str(tmp_path / "plot.png")])
    printed = capsys.readouterr().out
    assert "|          0.95 |         1 |      1.000 |" in printed
    assert "Rank correlation (Spearman) of score and OKS: 1.000; of the 2 nearest" in printed
    assert "nearest to a labeled person: 1.000\n" in printed
    assert printed.endswith("Found a second time: 0 of 3 persons (0.0%)\n")
    plot = cv2.imread(str(tmp_path / "plot.png"))
    assert plot is not None and plot.std() > 10


def test_persons_of_low_scores_can_be_left_out(dataset, tmp_path, capsys):
    results = write_results(tmp_path, (1, 100, 0.9), (1, 305, 0.5), (2, 100, 0.1))
    score_quality.main([dataset, str(results), "--score-above", "0.3"])
    printed = capsys.readouterr().out
    assert "0.95 |" in printed and "0.15 |" not in printed


@pytest.mark.parametrize(
    ("output", "sentence"), [("plot.nothing", "nothing"), ("missing/plot.png", "missing/plot.png")]
)
def test_a_plot_that_cannot_be_written(output, sentence, dataset, tmp_path):
    results = write_results(tmp_path, (1, 100, 0.9))
    with pytest.raises(SystemExit) as end:
        score_quality.main([dataset, str(results), "--output", str(tmp_path / output)])
    assert str(end.value).startswith("score_quality: ") and sentence in str(end.value)


def test_results_with_ignored_persons_only(dataset, tmp_path):
    results = write_results(tmp_path, (1, 600, 0.9))
    with pytest.raises(SystemExit, match="names nobody of a score of 0 or above who"):
        score_quality.main([dataset, str(results)])
