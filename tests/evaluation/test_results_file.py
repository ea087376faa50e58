"""Results that do not fit the labels end in one sentence, in every command that takes results."""

from __future__ import annotations

import math
import runpy
import sys

import pytest
from detectron2.data import MetadataCatalog

from querypose.evaluation import evaluate_coco
from querypose.evaluation.ground_truth import count_matches
from querypose.skeleton import CROWDPOSE_SKELETON, Skeleton
from querypose.tools import score_threshold
from querypose.tools.judged_results import read_dataset_results

POINTS = [30, 20, 2] * 14
SOUND = {"image_id": 1, "category_id": 1, "keypoints": POINTS, "score": 0.5}
BAD = {
    "category_zero": ({"category_id": 0}, "result 1 has category 0, but the categories of"),
    "category_text": ({"category_id": "1"}, "result 1 has category '1', but the categories of"),
    "category_null": ({"category_id": None}, "result 1 has category None, but the categories"),
    "category_list": ({"category_id": [1]}, "result 1 has category [1], but the categories of"),
    "image": ({"image_id": 77}, "does not have, 77 among them; evaluate them on the split"),
    "image_text": ({"image_id": "1"}, "does not have, '1' among them; evaluate them on the split"),
    "image_null": ({"image_id": None}, "result 1 is of image None; write an id of"),
    "image_list": ({"image_id": [1]}, "result 1 is of image [1]; write an id of"),
    "score_null": ({"score": None}, "result 1 has the score None, which is no finite number"),
    "score_nan": ({"score": math.nan}, "result 1 has the score nan, which is no finite number"),
    "score_infinity": ({"score": -math.inf}, "result 1 has the score -inf, which is no finite"),
    "score_text": ({"score": "0.9"}, "result 1 has the score '0.9', which is no finite number"),
    "keypoints_null": ({"keypoints": None}, "result 1 has the keypoints None, not a list"),
    "keypoints_text": ({"keypoints": "30 20"}, "result 1 has the keypoints '30 20', not a list"),
    "keypoints_nan": ({"keypoints": [*POINTS[:-1], math.nan]}, "result 1 has nan among its keypo"),
    "null_keypoint": ({"keypoints": [None, *POINTS[1:]]}, "result 1 has None among its keypoints"),
    "text_keypoint": ({"keypoints": ["30", *POINTS[1:]]}, "result 1 has '30' among its keypoints"),
    "seventeen": ({"keypoints": [30, 20, 2] * 17}, "result 1 has 51 keypoint numbers, not 42"),
    "thirteen": ({"keypoints": [30, 20, 2] * 13}, "result 1 has 39 keypoint numbers, not 42"),
    "nobody": ({"keypoints": []}, "result 1 has 0 keypoint numbers, not 42"),
    "nested": ({"keypoints": [[30, 20, 2]] * 14}, "result 1 has 14 keypoint numbers, not 42"),
}


def evaluation_command(monkeypatch, name, results, *options):
    json_file = MetadataCatalog.get(name).json_file
    monkeypatch.setattr(sys, "argv", ["querypose.evaluation", json_file, str(results), *options])
    runpy.run_module("querypose.evaluation", run_name="__main__")


def judged_ap(name, results):
    """As the score tools count, by the skeleton that the dataset is registered with."""
    judged = read_dataset_results(name, results)
    labels = judged.annotations.labels
    return count_matches(labels, judged.results, judged.sigmas).stats[0]


def threshold_command(monkeypatch, name, results):
    score_threshold.main([name, str(results)])


@pytest.fixture(params=[evaluation_command, threshold_command], ids=["evaluation", "threshold"])
def command(request, monkeypatch, label_content, register_labels, write_labels):
    content = label_content(CROWDPOSE_SKELETON.keypoints)
    name = register_labels(content, CROWDPOSE_SKELETON, evaluator_type="crowdpose")
    return lambda results: request.param(monkeypatch, name, write_labels(results, "results.json"))


@pytest.mark.parametrize("fault", BAD)
def test_a_result_that_does_not_fit(command, fault):
    changes, sentence = BAD[fault]
    with pytest.raises(SystemExit) as end:
        command([SOUND, SOUND | changes])
    assert sentence in str(end.value)
    assert "\n" not in str(end.value)


@pytest.mark.parametrize(
    "results",
    [
        [SOUND, SOUND | {"bbox": [18, 10, 24, 64], "track_id": 3}],
        [SOUND | {"bbox": None}, SOUND | {"caption": "a person"}],
    ],
    ids=["boxes_in_some", "other_fields"],
)
def test_fields_that_nobody_reads_do_not_matter(command, results, capsys):
    command(results)
    assert capsys.readouterr().out


def test_sizes_of_persons_are_those_of_the_evaluator(label_content, write_labels):
    content = label_content()
    person = content["annotations"][0]
    for other in content["annotations"]:
        other["area"] = 1500
    found = {key: person[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 0.9}
    # Nobody is there: a medium box around keypoints of a small extent.
    nobody = found | {"score": 0.95, "keypoints": [100, 70, 2, *[110, 80, 2] * 4]}
    json_file = write_labels(content, "labels.json")
    boxes = {"bbox": person["bbox"]}, {"bbox": [85, 55, 40, 40]}
    with_boxes = [result | box for result, box in zip((found, nobody), boxes, strict=True)]
    medium = {
        name: evaluate_coco(json_file, write_labels(results, f"{name}.json"))["APm"]
        for name, results in {"with": with_boxes, "without": [found, nobody]}.items()
    }
    assert medium["without"] > 0
    assert medium["with"] == pytest.approx(medium["without"] / 2)


@pytest.mark.parametrize(
    ("own", "extent", "number"),
    [([24, 64], [-1, 64], "1"), ([24, 64], [24, -1], "1"), ([0, 64], [0, 0], "all")],
)
def test_boxes_that_are_none_do_not_count(label_content, write_labels, caplog, own, extent, number):
    content = label_content()
    json_file = write_labels(content, "labels.json")
    person = content["annotations"][0]
    found = {key: person[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 0.9}
    nobody = found | {"score": 0.95, "keypoints": [100, 70, 2, *[110, 80, 2] * 4]}
    without = evaluate_coco(json_file, write_labels([found, nobody], "without.json"))
    assert not caplog.records
    flat = [
        result | {"bbox": box}
        for result, box in ((found, [18, 10, *own]), (nobody, [85, 55, *extent]))
    ]
    flat_file = write_labels(flat, "flat.json")
    assert evaluate_coco(json_file, flat_file) == pytest.approx(without, nan_ok=True)
    assert f"{flat_file}: {number} of 2 boxes are not x, y, width and height" in caplog.text


def test_an_empty_box_among_others_counts_as_in_the_evaluator(label_content, write_labels):
    """Persons beyond the image may have one."""
    content = label_content()
    json_file = write_labels(content, "labels.json")
    person = content["annotations"][0]
    found = {key: person[key] for key in ("image_id", "category_id", "keypoints", "bbox")}
    nobody = found | {"keypoints": [100, 70, 2, *[110, 80, 2] * 4], "bbox": [85, 55, 40, 40]}
    rows = [found | {"score": 0.9}, nobody | {"score": 0.95}]
    expected = evaluate_coco(json_file, write_labels(rows, "whole.json"))
    rows.append(nobody | {"score": 0.01, "bbox": [128, 0, 0, 20]})
    assert evaluate_coco(json_file, write_labels(rows, "one_empty.json")) == pytest.approx(
        expected, nan_ok=True
    )


def test_results_of_any_keypoints_are_evaluated_as_coco_does(
    monkeypatch, label_content, write_labels, register_labels, capsys
):
    content = label_content()
    json_file = write_labels(content, "labels.json")
    person = content["annotations"][0]
    found = {key: person[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 0.9}
    results = write_labels([found], "results.json")
    # One of four persons, exactly: of the 101 recalls, those up to 0.25 have precision 1.
    metrics = evaluate_coco(json_file, results)
    assert metrics["AP"] == pytest.approx(100 * 26 / 101)
    assert metrics["AR"] == pytest.approx(25)
    monkeypatch.setattr(sys, "argv", ["querypose.evaluation", str(json_file), str(results)])
    runpy.run_module("querypose.evaluation", run_name="__main__")
    assert "| 25.743 |" in capsys.readouterr().out
    assert math.isnan(evaluate_coco(json_file, write_labels([], "none.json"))["AP"])


@pytest.mark.parametrize("names", [("nose", "left_ear", "tail"), CROWDPOSE_SKELETON.keypoints])
def test_the_command_counts_by_the_sigmas_of_the_skeleton_file(
    monkeypatch, label_content, write_labels, register_labels, capsys, tmp_path, names
):
    skeleton = Skeleton(names, sigmas=(0.005,) * len(names))
    skeleton_file = tmp_path / "skeleton.yaml"
    skeleton_file.write_text(skeleton.to_yaml())
    content = label_content(names)
    name = register_labels(content, skeleton)
    results = write_labels(
        [
            {"image_id": person["image_id"], "category_id": 1, "score": 0.9}
            | {"keypoints": [v + 0.2 * (i % 3 == 0) for i, v in enumerate(person["keypoints"])]}
            for person in content["annotations"]
        ],
        "results.json",
    )

    def printed_ap(*options):
        evaluation_command(monkeypatch, name, results, *options)
        values = capsys.readouterr().out.splitlines()[2]
        return float(values.split("|")[1])

    expected = pytest.approx(100 * judged_ap(name, results), abs=0.001)
    assert 0 < expected.expected < 100
    assert printed_ap("--skeleton", str(skeleton_file)) == expected
    by_sigmas = printed_ap("--sigmas", *["0.005"] * len(names))
    # CrowdPose's definition has other areas.
    assert by_sigmas == expected or names == CROWDPOSE_SKELETON.keypoints
    assert 0 < by_sigmas < 100
    assert printed_ap() == pytest.approx(100)


def test_the_command_says_whose_sigmas_it_takes(
    monkeypatch, label_content, write_labels, register_labels, capsys, tmp_path
):
    name = register_labels(label_content(("nose", "left_ear", "tail")))
    found = {"image_id": 1, "category_id": 1, "keypoints": [30, 20, 2] * 3, "score": 0.5}
    results = write_labels([found], "results.json")
    evaluation_command(monkeypatch, name, results)
    assert "OKS sigmas: 0.067 for each keypoint, since" in capsys.readouterr().out
    skeleton_file = tmp_path / "skeleton.yaml"
    skeleton_file.write_text("keypoints: [nose, left_ear, tail]")
    evaluation_command(monkeypatch, name, results, "--skeleton", str(skeleton_file))
    assert f"OKS sigmas: those of {skeleton_file}.\n" in capsys.readouterr().out
    evaluation_command(monkeypatch, name, results, "--sigmas", "0.1", "0.1", "0.2")
    assert "OKS sigmas: those of --sigmas.\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"skeleton has 3 keypoints but 2 sigmas"):
        evaluation_command(monkeypatch, name, results, "--sigmas", "0.1", "0.1")


def test_a_metric_of_sizes_that_no_person_has_is_nan(label_content, write_labels):
    content = label_content()
    person = content["annotations"][0]
    found = {key: person[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 0.9}
    for person in content["annotations"]:
        person["area"], person["bbox"] = 100 * 100, [0, 0, 128, 96]
    json_file = write_labels(content, "labels.json")
    metrics = evaluate_coco(json_file, write_labels([found], "results.json"))
    assert math.isnan(metrics["APm"])
    assert metrics["APl"] == pytest.approx(metrics["AP"]) and metrics["AP"] > 0


def test_the_published_example_has_its_published_result(real_data):
    folder = real_data / "evaluators"
    metrics = evaluate_coco(folder / "example_coco_val.json", folder / "example_coco_preds.json")
    expected = {"AP": 86.09, "AP50": 99.31, "AP75": 91.09, "APm": 77.56, "APl": 93.73, "AR": 87.5}
    assert metrics == pytest.approx(expected, abs=0.01)
