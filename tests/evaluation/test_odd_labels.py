"""Evaluation on label files that are sound only once they are completed, numbered, or empty."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.cocoeval import COCOeval

from querypose.data.datasets.labels import read_labels
from querypose.evaluation import CrowdPoseEvaluator, KeypointEvaluator, evaluate_crowdpose
from querypose.evaluation.ground_truth import GroundTruth
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON
from querypose.tools.judged_results import read_dataset_results
from querypose.tools.score_threshold import judge_people

EVALUATORS = {"coco": KeypointEvaluator, "crowdpose": CrowdPoseEvaluator}


@pytest.fixture(params=EVALUATORS)
def kind(request):
    return request.param


@pytest.fixture
def content(label_content):
    """Of CrowdPose's keypoints, for either evaluator."""
    return label_content(CROWDPOSE_SKELETON.keypoints)


@pytest.fixture
def build(register_labels, kind, tmp_path):
    """``build(content)``: the evaluator of a file, ready to be fed."""

    def make(content, tasks=("bbox", "keypoints")):
        name = register_labels(content, CROWDPOSE_SKELETON, evaluator_type=kind)
        evaluator = EVALUATORS[kind](name, tasks, output_dir=str(tmp_path / "out"))
        evaluator.reset()
        return evaluator

    return make


def people_of(content, image_id, shift=0.0):
    """An image's labels, as predicted."""
    people = [p for p in content["annotations"] if p["image_id"] == image_id]
    keypoints = torch.tensor([p["keypoints"] for p in people], dtype=torch.float32)
    boxes = torch.tensor([p["bbox"] for p in people], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    return Instances(
        (96, 128),
        pred_boxes=Boxes(boxes),
        scores=torch.linspace(1, 0.9, len(people)),
        pred_classes=torch.zeros(len(people), dtype=torch.long),
        pred_keypoints=keypoints.view(len(people), -1, 3) + torch.tensor([0.5 + shift, 0.5, 0]),
    )


def evaluate_own(evaluator, content, shift=0.0):
    for image in content["images"]:
        people = people_of(content, image["id"], shift)
        evaluator.process([{"image_id": image["id"]}], [{"instances": people}])
    return evaluator.evaluate()


IDS = {
    "from_zero": ((0, 1, 2, 3), (1, 2), 1),
    "texts": (tuple("abcd"), ("b.png", "a.png"), "person"),
    "hashes": ((2**63, 2**63 + 1, 2**64, -(2**63)), (2**64 - 1, 2**63 + 1), 0),
    "mixed": ((7, "7", None, 0), (7, "7"), 2**60),
}


@pytest.mark.parametrize("ids", IDS)
def test_own_labels_are_perfect_and_results_keep_the_ids(content, build, tmp_path, ids):
    annotation_ids, image_ids, category_id = IDS[ids]
    for image, image_id in zip(content["images"], image_ids, strict=True):
        image["id"] = image_id
    content["categories"][0]["id"] = category_id
    for number, person in enumerate(content["annotations"]):
        person |= {
            "id": annotation_ids[number],
            "image_id": image_ids[number // 2],
            "category_id": category_id,
        }
    evaluator = build(content)

    results = evaluate_own(evaluator, content)

    assert results["keypoints"]["AP"] == pytest.approx(100)
    assert results["bbox"]["AP"] == pytest.approx(100)
    saved = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [result["image_id"] for result in saved] == [image_ids[0]] * 2 + [image_ids[1]] * 2
    assert {result["category_id"] for result in saved} == {category_id}
    predictions = torch.load(tmp_path / "out" / "instances_predictions.pth", weights_only=False)
    assert [prediction["image_id"] for prediction in predictions] == list(image_ids)
    # The commands that take this file know the ids, too.
    saved_file = tmp_path / "out" / "coco_instances_results.json"
    json_file = evaluator._metadata.json_file
    assert evaluate_crowdpose(json_file, saved_file)["AP"] == pytest.approx(100)
    people = judge_people(*read_dataset_results(evaluator._metadata.name, saved_file))
    assert people.correct.tolist() == [True] * 4 and people.num_labeled == 4


GAPS = {
    "no_num_keypoints": lambda person: person.pop("num_keypoints"),
    "no_iscrowd": lambda person: person.pop("iscrowd"),
    "null_iscrowd": lambda person: person.update(iscrowd=None),
    "no_area": lambda person: person.pop("area"),
    "area_zero": lambda person: person.update(area=0),
    "area_one": lambda person: person.update(area=1),
    "area_minus_one": lambda person: person.update(area=-1),
    "area_null": lambda person: person.update(area=None),
}


@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (3,)])
@pytest.mark.parametrize("gap", GAPS)
def test_a_prediction_one_pixel_off_is_good_with_any_gap(content, build, gap, numbers):
    for number in numbers:
        GAPS[gap](content["annotations"][number])
    assert evaluate_own(build(content), content, shift=0.5)["keypoints"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("nothing", [None, []])
def test_a_person_without_keypoints_does_not_count(content, build, nothing):
    missed = content["annotations"].pop()
    content["annotations"].insert(0, missed | {"keypoints": nothing})
    evaluator = build(content)
    content["annotations"].pop(0)
    assert evaluate_own(evaluator, content)["keypoints"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(("image_ids", "is_perfect"), [(None, False), (["second"], True)])
def test_some_images_by_their_own_ids(content, build, image_ids, is_perfect):
    content["images"][1]["id"] = "second"
    for person in content["annotations"][2:]:
        person["image_id"] = "second"
    evaluator = build(content, ("keypoints",))
    for image, shift in zip(content["images"], (50, 0), strict=True):
        people = people_of(content, image["id"], shift)
        evaluator.process([{"image_id": image["id"]}], [{"instances": people}])
    assert (evaluator.evaluate(image_ids)["keypoints"]["AP"] > 99) == is_perfect


def test_of_a_model_without_keypoints_the_boxes_are_evaluated(content, build):
    evaluator = build(content)
    for image in content["images"]:
        people = people_of(content, image["id"])
        people.remove("pred_keypoints")
        evaluator.process([{"image_id": image["id"]}], [{"instances": people}])
    results = evaluator.evaluate()
    assert list(results) == ["bbox"]
    assert results["bbox"]["AP"] == pytest.approx(100)
    # The next model may predict some.
    evaluator.reset()
    assert set(evaluate_own(evaluator, content)) == {"bbox", "keypoints"}


def test_nothing_is_left_to_evaluate_of_a_model_without_keypoints(content, build):
    evaluator = build(content, ("keypoints",))
    people = people_of(content, 1)
    people.remove("pred_keypoints")
    evaluator.process([{"image_id": 1}], [{"instances": people}])
    with pytest.raises(ValueError, match=r"predicts no keypoints: evaluate its boxes"):
        evaluator.evaluate()


@pytest.mark.parametrize("field", ["pred_keypoints", "scores", "pred_boxes"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_not_finite_are_refused(content, build, field, value):
    evaluator = build(content)
    people = people_of(content, 2)
    numbers = people.get(field)
    getattr(numbers, "tensor", numbers)[-1].fill_(value)
    with pytest.raises(FloatingPointError, match=f"The {field} of image 2 contain NaN or infin"):
        evaluator.process([{"image_id": 2}], [{"instances": people}])


def test_an_unknown_image_is_named(content, build):
    with pytest.raises(ValueError, match=r"does not have, 'nowhere' among them"):
        build(content).process([{"image_id": "nowhere"}], [{"instances": people_of(content, 1)}])


@pytest.mark.parametrize("predicted", [True, False])
def test_without_annotations_there_is_nothing_to_evaluate(
    content, build, caplog, tmp_path, predicted
):
    evaluator = build(content | {"annotations": []})
    people = people_of(content, 1)[: 2 * predicted]
    evaluator.process([{"image_id": 1}], [{"instances": people}])
    results = evaluator.evaluate()
    assert set(results) == {"bbox", "keypoints"}
    assert "AP50" in results["keypoints"]
    assert all(math.isnan(value) for task in results.values() for value in task.values())
    assert "has no annotations: there is nothing to evaluate" in caplog.text
    saved = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert len(saved) == 2 * predicted


def test_without_annotations_a_file_of_results_is_not_evaluated(content, write_labels, caplog):
    json_file = write_labels(content | {"annotations": []})
    keypoints = content["annotations"][0]["keypoints"]
    results = [{"image_id": 1, "category_id": 1, "keypoints": keypoints, "score": 1}]
    metrics = evaluate_crowdpose(json_file, write_labels(results, "results.json"))
    assert all(map(math.isnan, metrics.values()))
    assert "there is nothing to evaluate" in caplog.text


def test_sigmas_are_the_skeletons_or_one_for_each(content, build, register_labels):
    assert build(content)._kpt_oks_sigmas == list(CROWDPOSE_SKELETON.sigmas)
    name = register_labels(content, CROWDPOSE_SKELETON)
    with pytest.raises(ValueError, match=r"There are 17 OKS sigmas .* for the 14 keypoints of"):
        KeypointEvaluator(name, kpt_oks_sigmas=COCO_SKELETON.sigmas)


def test_a_dataset_of_other_categories_than_it_was_registered_with(content, register_labels):
    name = register_labels(content, CROWDPOSE_SKELETON, thing_classes=["dog"])
    with pytest.raises(ValueError, match=r"has the categories \{1: 'person'\}, but .* \['dog'\]"):
        KeypointEvaluator(name)


def test_no_trace_is_left_in_the_catalog(content, build):
    before = set(MetadataCatalog.list())
    evaluator = build(content)
    assert set(MetadataCatalog.list()) - before == {evaluator._metadata.name}


def test_official_numbers_of_coco(real_data):
    folder: Path = real_data / "evaluators"
    ground_truth = GroundTruth(read_labels(str(folder / "example_coco_val.json"), COCO_SKELETON))
    results = json.loads((folder / "example_coco_preds.json").read_text())
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # AP, AP50, AP75, APm, APl, AR
    expected = [0.8609, 0.9931, 0.9109, 0.7756, 0.9373, 0.8750]
    assert np.round(evaluation.stats[:6], 4).tolist() == expected


def test_labels_of_records_are_judged_as_those_of_a_file(
    content, build, kind, records_of, register_records, tmp_path
):
    for person in content["annotations"]:
        person["area"] = 300
    for image in content["images"]:
        image["crowdIndex"] = 0.5
    records = records_of(content)
    for record in records:
        record["crowdIndex"] = 0.5
    metadata = {"evaluator_type": kind, "thing_classes": ["person"]}
    name = register_records(records, CROWDPOSE_SKELETON, **metadata)
    of_file = evaluate_own(build(content), content, shift=1.5)

    def evaluate():
        evaluator = EVALUATORS[kind](name, ("bbox", "keypoints"), output_dir=str(tmp_path / "own"))
        evaluator.reset()
        return evaluate_own(evaluator, content, shift=1.5)

    assert 0 < of_file["keypoints"]["AP"] < 100
    for results in (evaluate(), evaluate()):
        for task, metrics in of_file.items():
            assert results[task] == pytest.approx(metrics, nan_ok=True)
    # Later evaluations in the same folder see new labels.
    for record in records:
        for person in record["annotations"]:
            numbers = enumerate(person["keypoints"])
            person["keypoints"] = [v if i % 3 else v + 1.5 for i, v in numbers]
    assert evaluate()["keypoints"]["AP"] == pytest.approx(100)
