"""Precision and recall above scores, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.data import register_coco_keypoints
from querypose.inference.score_scale import ScoreScale
from querypose.skeleton import COCO_SKELETON
from querypose.tools import score_threshold
from querypose.tools.judged_results import read_dataset_results
from querypose.tools.score_threshold import JudgedPeople, judge_people

SIDE = 100


def keypoints_at(x: float) -> list[float]:
    """All keypoints of a person whose box begins at x."""
    return [value for i in range(17) for value in (x + 5 * i, 10.0 + 5 * i, 2.0)]


def person(number: int, image_id: int, x: float, labeled: bool = True) -> dict:
    keypoints = keypoints_at(x) if labeled else [0.0] * 51
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [x, 0, SIDE, SIDE],
        "keypoints": keypoints,
        "num_keypoints": 17 if labeled else 0,
    }


def found(image_id: int, x: float, score: float) -> dict:
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints_at(x),
        "score": score,
    }


@pytest.fixture
def dataset(tmp_path):
    """Three people with keypoints and one without, in two images."""
    people = [
        person(1, 1, 0),
        person(2, 1, 300),
        person(3, 1, 600, labeled=False),
        person(4, 2, 0),
    ]
    images = [{"id": i, "file_name": f"{i}.png", "width": 900, "height": 100} for i in (1, 2)]
    annotation_file = tmp_path / "annotations.json"
    content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    annotation_file.write_text(json.dumps(content))
    name = f"judged_{tmp_path.name}"
    register_coco_keypoints(name, annotation_file, tmp_path, COCO_SKELETON)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


RESULTS = [
    found(1, 0, 0.91),
    found(1, 150, 0.8),  # Nobody is there.
    found(1, 600, 0.75),  # A person without labeled keypoints is ignored.
    found(2, 2, 0.7),
    found(1, 1, 0.6),  # The first one a second time.
]


def write(folder: Path, content: object) -> str:
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_people_are_counted_as_by_hand(dataset, tmp_path):
    results = read_dataset_results(dataset, Path(write(tmp_path, RESULTS)))
    people = judge_people(*results)
    assert people.scores.tolist() == [0.91, 0.8, 0.7, 0.6]
    assert people.correct.tolist() == [True, False, True, False]
    assert people.num_labeled == 3
    assert people.at_least(0.0) == (4, 0.5, pytest.approx(2 / 3))
    assert people.at_least(0.65) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert people.at_least(0.91) == (1, 1.0, pytest.approx(1 / 3))
    assert people.at_least(0.92) == (0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("precision", "threshold"), [(0.9, 0.855), (0.66, 0.65), (0.5, 0.0), (0.0, 0.0)]
)
def test_lowest_threshold(precision, threshold):
    people = JudgedPeople(np.array([0.91, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0], bool), 3)
    assert people.lowest_threshold(precision) == threshold
    assert people.at_least(threshold)[1] >= precision


def test_lowest_threshold_if_the_best_person_is_wrong():
    people = JudgedPeople(np.array([0.9, 0.8]), np.array([False, True]), 1)
    assert people.lowest_threshold(0.7) is None
    assert people.lowest_threshold(0.5) == 0.0


def test_no_threshold_is_between_people_of_one_score():
    people = JudgedPeople(np.array([0.9, 0.5, 0.5, 0.5]), np.array([0, 1, 1, 0], bool), 2)
    assert people.lowest_threshold(0.6) is None
    people = JudgedPeople(np.array([0.9, 0.5, 0.5, 0.4]), np.array([1, 1, 0, 0], bool), 2)
    assert people.lowest_threshold(0.8) == 0.7
    assert people.lowest_threshold(0.6) == 0.45


def test_a_named_threshold_keeps_people_of_the_precision_asked_for():
    """Models keep those whose score is the threshold, too."""
    people = JudgedPeople(np.array([0.9] + [0.5] * 9), np.array([1] + [0] * 9, bool), 1)
    kept = people.scores >= people.lowest_threshold(0.7)
    assert kept.sum() == 1 and people.correct[kept].mean() >= 0.7


@pytest.mark.parametrize("gap", [1e-4, 1e-9, np.spacing(0.5)])
def test_a_named_threshold_has_the_decimals_that_scores_need(gap):
    people = JudgedPeople(np.array([0.5 + gap, 0.5]), np.array([1, 0], bool), 1)
    threshold = float(str(people.lowest_threshold(1.0)))
    assert (people.scores >= threshold).tolist() == [True, False]


def test_nobody_counts():
    assert JudgedPeople(np.zeros(0), np.zeros(0, bool), 2).lowest_threshold(0.5) is None


def test_the_precision_of_a_score_is_that_of_its_neighbors_and_increases():
    # Of each hundred people, best first, so many are right; the second and third are averaged.
    counts = (97, 60, 70, 20, 1)
    correct = np.concatenate([np.arange(100) < count for count in counts])
    scores = np.linspace(0.9, 0.1, 500)
    points = JudgedPeople(scores, correct, 500).score_precision()
    groups = scores.reshape(5, 100).mean(axis=1).round(3)
    assert points == [[groups[3], 0.2], [groups[2], 0.65], [groups[0], 0.97]]
    assert ScoreScale(points).chance(groups[0]) == 0.97
    assert JudgedPeople(scores[:99], correct[:99], 500).score_precision() == []


def test_command(dataset, tmp_path, capsys):
    score_threshold.main([dataset, write(tmp_path, RESULTS), "--precision", "0.66"])
    printed = capsys.readouterr().out
    assert "|             0.65 |        3 |       0.667 |    0.667 |" in printed
    last_line = "The lowest threshold with a precision of 0.66: 0.65, with a recall of 0.667\n"
    assert printed.endswith(last_line)


def test_sigmas_are_those_of_the_evaluation(dataset, tmp_path, capsys):
    results = write(tmp_path, [found(1, 2, 0.9)])
    command = [dataset, results, "--config-file", "quick/tiny"]
    score_threshold.main(command)
    assert "|             0.00 |        1 |       1.000 |" in capsys.readouterr().out
    score_threshold.main([*command, "--opts", "TEST.KEYPOINT_OKS_SIGMAS", str([0.001] * 17)])
    assert "|             0.00 |        1 |       0.000 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[{", "results.json is not valid JSON"),
        ([], "results.json is empty: the model predicted nobody."),
        ([found(7, 0, 0.5)], "annotations.json does not have, 7 among them"),
        ([{"image_id": 1}], "result 0 lacks ['category_id', 'keypoints', 'score']"),
        (["person"], "result 0 lacks"),
    ],
)
def test_invalid_results_are_refused(content, sentence, dataset, tmp_path):
    with pytest.raises(SystemExit) as end:
        score_threshold.main([dataset, write(tmp_path, content)])
    assert str(end.value).startswith("score_threshold: ")
    assert sentence in str(end.value)


def test_labels_without_annotations(label_content, register_labels, tmp_path):
    name = register_labels(label_content() | {"annotations": []})
    with pytest.raises(SystemExit, match="has no annotations to match results with"):
        score_threshold.main([name, write(tmp_path, [])])


def test_missing_file_and_unknown_dataset(dataset, tmp_path):
    with pytest.raises(SystemExit, match="No such file"):
        score_threshold.main([dataset, str(tmp_path / "nothing.json")])
    with pytest.raises(SystemExit, match="No dataset is registered as 'nowhere'"):
        score_threshold.main(["nowhere", write(tmp_path, RESULTS)])
