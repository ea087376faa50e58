from __future__ import annotations

import json
import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.structures import Instances

from querypose.data import register_coco_keypoints
from querypose.evaluation import CrowdPoseEvaluator, evaluate_crowdpose
from querypose.skeleton import CROWDPOSE_SKELETON

NUM_KEYPOINTS = 14
METRICS = ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP_easy", "AP_medium", "AP_hard")
# Of the 101 recall thresholds 0, .01, ..., 1, these are met by finding half of the people.
HALF_FOUND = 100 * 51 / 101
NO_ONE = Instances((480, 640), scores=torch.zeros(0))


def person(image_id: int, left: float, labeled: int = NUM_KEYPOINTS) -> dict:
    """A person in a box of 100 x 100 whose keypoints stand in a row."""
    keypoints = np.zeros((NUM_KEYPOINTS, 3))
    keypoints[:labeled, 0] = left + 5 * np.arange(labeled)
    keypoints[:labeled, 1:] = 50, 2
    return {
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, 0, 100, 100],
        "num_keypoints": labeled,
        "keypoints": keypoints.flatten().tolist(),
    }


def found(annotation: dict, score: float, shift: float = 0) -> dict:
    keypoints = np.array(annotation["keypoints"]).reshape(-1, 3) + np.array([shift, 0, 0])
    return {
        "image_id": annotation["image_id"],
        "category_id": 1,
        "keypoints": keypoints.flatten().tolist(),
        "score": score,
    }


@pytest.fixture
def write(tmp_path) -> Callable:
    """``write(crowd_indices, people, results)``: the two files; images count from 1."""

    def files(crowd_indices: list, people: list[dict], results: list[dict]) -> tuple[Path, Path]:
        images = [
            {"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480, "crowdIndex": index}
            for i, index in enumerate(crowd_indices, start=1)
        ]
        content = {
            "images": images,
            "annotations": [{"id": i, **person} for i, person in enumerate(people, start=1)],
            "categories": [{"id": 1, "name": "person"}],
        }
        annotation_file, results_file = tmp_path / "annotations.json", tmp_path / "results.json"
        annotation_file.write_text(json.dumps(content))
        results_file.write_text(json.dumps(results))
        return annotation_file, results_file

    return files


@pytest.fixture
def register(temporary_datasets, tmp_path):
    """Registers annotation files, for the time of a test."""

    def name_of(annotation_file: Path) -> str:
        name = f"crowdpose_evaluated_{tmp_path.name}_{len(temporary_datasets)}"
        register_coco_keypoints(
            name, annotation_file, tmp_path, CROWDPOSE_SKELETON, evaluator_type="crowdpose"
        )
        temporary_datasets.append(name)
        return name

    return name_of


def people_of(image: dict) -> Instances:
    """A loaded image's labeled people as if they had been predicted."""
    size = image["height"], image["width"]
    people = [
        {**one, "keypoints": np.array(one["keypoints"]).reshape(-1, 3)}
        for one in image["annotations"]
        if any(one["keypoints"][2::3])
    ]
    labeled = annotations_to_instances(people, size)
    return Instances(
        size,
        pred_boxes=labeled.gt_boxes,
        pred_classes=labeled.gt_classes,
        pred_keypoints=labeled.gt_keypoints.tensor,
        scores=torch.ones(len(labeled)),
    )


def test_levels_by_hand(write):
    easy, medium, hard = ([person(i, 0), person(i, 300)] for i in (1, 2, 3))
    results = [
        found(easy[0], 0.9),
        found(easy[1], 0.9),
        found(medium[0], 0.8),
        found(hard[0], 0.1, shift=10_000),
        found(hard[1], 0.1, shift=10_000),
    ]

    metrics = evaluate_crowdpose(*write([0.0, 0.5, 1.0], easy + medium + hard, results))

    assert tuple(metrics) == METRICS
    assert metrics == pytest.approx(
        {
            # Three of six people, before anything wrong.
            **dict.fromkeys(("AP", "AP50", "AP75"), HALF_FOUND),
            **dict.fromkeys(("AR", "AR50", "AR75"), 50),
            "AP_easy": 100,
            "AP_medium": HALF_FOUND,
            "AP_hard": 0,
        }
    )


@pytest.mark.parametrize(
    ("crowd_index", "level"), [(0.19, "easy"), (0.2, "medium"), (0.79, "medium"), (0.8, "hard")]
)
def test_a_level_begins_at_its_threshold(write, crowd_index, level):
    people = [person(1, 0)]

    metrics = evaluate_crowdpose(*write([crowd_index], people, [found(people[0], 1)]))

    assert metrics[f"AP_{level}"] == pytest.approx(100)
    others = {"easy", "medium", "hard"} - {level}
    assert all(math.isnan(metrics[f"AP_{other}"]) for other in others)


@pytest.mark.parametrize("given_area", [None, 10_000])
def test_area_is_a_share_of_the_box(write, given_area):
    # One labeled keypoint, the left shoulder, moved so far that OKS is .62 with 0.53 of the box:
    # three of the ten thresholds .5, .55, ..., .95. With the whole box it would be .78, and six.
    area, variance = 0.53 * 100 * 100, (2 * 0.079) ** 2
    shift = math.sqrt(-math.log(0.62) * 2 * area * variance)
    people = [person(1, 0, labeled=1)]
    if given_area is not None:
        people[0]["area"] = given_area

    metrics = evaluate_crowdpose(*write([0.5], people, [found(people[0], 1, shift)]))

    assert (metrics["AP"], metrics["AR"]) == pytest.approx((30, 30))
    assert (metrics["AP50"], metrics["AP75"]) == pytest.approx((100, 0))


def test_twenty_people_of_an_image_count(write):
    people = [person(1, 0)]
    wrong = [found(people[0], 0.9, shift=10_000) for _ in range(20)]

    counted = evaluate_crowdpose(*write([0.5], people, [found(people[0], 0.1), *wrong[1:]]))
    dropped = evaluate_crowdpose(*write([0.5], people, [found(people[0], 0.1), *wrong]))

    assert counted["AP"] == pytest.approx(100 / 20)
    assert dropped["AP"] == 0


def test_people_without_labeled_keypoints_do_not_count(write):
    people = [person(1, 0), person(1, 300, labeled=0)]

    metrics = evaluate_crowdpose(*write([0.5], people, [found(people[0], 1)]))

    assert metrics["AP"] == pytest.approx(100)


def test_agrees_with_an_independent_implementation(write):
    faster_coco_eval = pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(0)
    people = [person(int(i), float(rng.uniform(0, 500))) for i in rng.integers(1, 21, size=60)]
    people += [person(i, 0, labeled=3) for i in range(1, 21)]
    results = [found(one, rng.uniform(), rng.normal(0, 12)) for one in people]
    annotation_file, results_file = write(rng.uniform(size=20).tolist(), people, results)

    ground_truth = faster_coco_eval.COCO(str(annotation_file))
    other = faster_coco_eval.COCOeval_faster(
        ground_truth,
        ground_truth.loadRes(str(results_file)),
        "keypoints_crowd",
        kpt_oks_sigmas=list(CROWDPOSE_SKELETON.sigmas),
        use_area=False,
    )
    other.run()

    ours = list(evaluate_crowdpose(annotation_file, results_file).values())
    # It rounds the levels' AP to four digits.
    np.testing.assert_allclose(ours, 100 * other.all_stats, atol=0.0051)
    assert 0 < min(ours) < max(ours) < 100


def test_official_tools_numbers(real_data):
    folder = real_data / "evaluators"

    metrics = evaluate_crowdpose(
        folder / "example_crowdpose_val.json", folder / "example_crowdpose_preds.json"
    )

    known = {"AP": 0.7877, "AP50": 0.9881, "AP75": 0.7314, "AR": 0.8222}
    known |= {"AP_easy": 1.0, "AP_medium": 0.9802, "AP_hard": 0.4116}
    assert {name: round(metrics[name] / 100, 4) for name in known} == known


def test_evaluator_agrees_with_evaluating_a_file(write, register, tmp_path):
    people = [person(i, left) for i in (1, 2, 3) for left in (0, 300)]
    annotation_file, _ = write([0.0, 0.5, 1.0], people, [])
    name = register(annotation_file)
    evaluator = CrowdPoseEvaluator(name, distributed=False, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    for number, image in enumerate(DatasetCatalog.get(name)):
        instances = people_of(image)
        # All of two people, the first one some pixels off, and no one.
        instances.pred_keypoints[:, :, 0] += 12 * number
        evaluator.process([image], [{"instances": instances[: 2 - number]}])

    results = evaluator.evaluate()["keypoints"]

    saved = tmp_path / "out" / "coco_instances_results.json"
    assert results == pytest.approx(evaluate_crowdpose(annotation_file, saved))
    assert (results["AP_easy"], results["AP_hard"]) == pytest.approx((100, 0))
    assert 0 < results["AP_medium"] < HALF_FOUND


def test_evaluator_scores_boxes_too_where_asked(write, register):
    people = [person(1, 0)]
    name = register(write([0.5], people, [])[0])
    evaluator = CrowdPoseEvaluator(name, tasks=("bbox", "keypoints"), distributed=False)
    evaluator.reset()
    (image,) = DatasetCatalog.get(name)
    evaluator.process([image], [{"instances": people_of(image)}])

    results = evaluator.evaluate()

    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["keypoints"]["AP"] == pytest.approx(100)


def test_real_ground_truth_is_perfect(real_data, register):
    name = register(real_data / "crowdpose" / "json" / "crowdpose_val_tiny.json")
    evaluator = CrowdPoseEvaluator(name, distributed=False)
    evaluator.reset()
    for image in DatasetCatalog.get(name):
        evaluator.process([image], [{"instances": people_of(image)}])

    assert evaluator.evaluate()["keypoints"] == pytest.approx(dict.fromkeys(METRICS, 100))


def test_no_one_predicted_is_nan(write, register):
    annotation_file, results_file = write([0.5], [person(1, 0)], [])
    evaluator = CrowdPoseEvaluator(register(annotation_file), distributed=False)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": NO_ONE}])

    for metrics in (
        evaluator.evaluate()["keypoints"],
        evaluate_crowdpose(annotation_file, results_file),
    ):
        assert tuple(metrics) == METRICS
        assert all(map(math.isnan, metrics.values()))


def test_unknown_image_is_named(write, register):
    people = [person(1, 0)]
    stray = found({**people[0], "image_id": 77}, 1)
    annotation_file, results_file = write([0.5], people, [stray])
    evaluator = CrowdPoseEvaluator(register(annotation_file), distributed=False)
    evaluator.reset()

    with pytest.raises(ValueError, match=r"annotations\.json does not have, 77 among them"):
        evaluator.process([{"image_id": 77}], [{"instances": NO_ONE}])
    with pytest.raises(ValueError, match=r"annotations\.json does not have, 77 among them"):
        evaluate_crowdpose(annotation_file, results_file)


def test_missing_crowd_index_is_named(write, register):
    annotation_file, results_file = write([0.5, None], [person(1, 0)], [])
    sentence = r"annotations\.json: 1 of 2 images have no crowdIndex \(the first is image 2\)"

    with pytest.raises(ValueError, match=sentence):
        CrowdPoseEvaluator(register(annotation_file), distributed=False)
    with pytest.raises(ValueError, match=sentence):
        evaluate_crowdpose(annotation_file, results_file)


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ({"AP": 1}, "not a JSON list of results"),
        ([{"image_id": 1, "category_id": 1, "score": 1}], r"result 0 lacks \['keypoints'\]"),
        (
            [{"image_id": 1, "category_id": 1, "score": 1, "keypoints": [0] * 51}],
            "result 0 has 51 keypoint numbers, not 42",
        ),
    ],
)
def test_results_of_another_kind_are_refused(write, results, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate_crowdpose(*write([0.5], [person(1, 0)], results))


def test_command_line_prints_the_metrics(write, monkeypatch, capsys):
    people = [person(1, 0)]
    files = write([0.5], people, [found(people[0], 1)])
    monkeypatch.setattr(sys, "argv", ["querypose.evaluation", *map(str, files)])

    runpy.run_module("querypose.evaluation", run_name="__main__")

    printed = capsys.readouterr().out
    assert all(name in printed for name in METRICS)
    assert "100.000" in printed


def test_command_line_names_a_missing_file(write, monkeypatch):
    annotation_file, _ = write([0.5], [person(1, 0)], [])
    arguments = ["querypose.evaluation", str(annotation_file), "nowhere.json"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"querypose\.evaluation: .*nowhere\.json"):
        runpy.run_module("querypose.evaluation", run_name="__main__")
