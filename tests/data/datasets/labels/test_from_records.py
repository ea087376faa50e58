"""Datasets that are registered by hand have the labels that a file would give them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from querypose.data.datasets.labels import examine_registered_labels, read_registered_labels
from querypose.skeleton import CROWDPOSE_SKELETON, Skeleton

SKELETON = Skeleton(("nose", "left_hand", "right_hand", "left_foot", "right_foot"))
PERSON = {"thing_classes": ["person"]}


@pytest.fixture
def records(label_content, records_of):
    """Two images with two people each."""
    return records_of(label_content())


def test_records_say_what_the_file_says(label_content, records, register_records, register_labels):
    of_file = read_registered_labels(register_labels(label_content(), SKELETON))
    before = copy.deepcopy(records)
    name = register_records(records, SKELETON, **PERSON)
    labels = [read_registered_labels(name) for _ in range(2)]
    assert records == before
    for of_records in labels:
        assert of_records.remarks == ()
        for own, other in zip(
            of_records.content["annotations"], of_file.content["annotations"], strict=True
        ):
            assert own == other | {"category_id": 0}
        assert list(of_records.image_ids) == list(of_file.image_ids)
        assert of_records.class_names == of_file.class_names


def test_an_area_that_is_missing_follows_the_rule_of_files(records, register_records, caplog):
    del records[0]["annotations"][1]["area"]
    name = register_records(records, SKELETON, **PERSON)
    first, second, *_ = read_registered_labels(name).content["annotations"]
    assert (first["area"], second["area"]) == (800, pytest.approx(0.53 * 24 * 64))
    assert f"{name}: the area is missing, 0 or absurd for the box" in caplog.text
    assert "annotation 1 of record 0" in caplog.text


# A quarter of the box of 24 x 64 pixels: a triangle, and the same number of pixels.
_MASKS = {
    "polygon": [[68, 10, 80, 10, 68, 74]],
    "run lengths": {"size": [96, 128], "counts": [68 * 96, 384, 60 * 96 - 384]},
    "compressed": coco_mask.encode(np.asfortranarray(np.eye(96, 128, dtype=np.uint8))),
    "broken": [[68, 10, 80]],
}


@pytest.mark.parametrize(
    ("mask", "area"),
    [("polygon", 384), ("run lengths", 384), ("compressed", 96), ("broken", 0.53 * 24 * 64)],
)
def test_an_area_that_is_missing_is_that_of_the_mask(records, register_records, mask, area):
    """Detectron2's own loader leaves areas out and masks in."""
    person = records[0]["annotations"][1]
    del person["area"]
    person["segmentation"] = _MASKS[mask]
    labels = read_registered_labels(register_records(records, SKELETON, **PERSON))
    assert labels.content["annotations"][1]["area"] == pytest.approx(area)


@pytest.mark.parametrize("of", [np.array, torch.tensor, tuple])
def test_arrays_and_tuples_are_read_as_lists(records, register_records, of):
    expected = read_registered_labels(register_records(records, SKELETON, **PERSON))
    changed = copy.deepcopy(records)
    for person in changed[0]["annotations"]:
        points = np.reshape(person["keypoints"], (-1, 3))
        person["keypoints"] = of(points.tolist())
        left, top, right, bottom = person["bbox"]
        person["bbox"] = of([left, top, right - left, bottom - top])
        person |= {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": np.bool_(False)}
        person |= {"category_id": np.int64(0), "area": np.float32(800)}
    changed[0]["image_id"] = np.int64(changed[0]["image_id"])
    labels = read_registered_labels(register_records(changed, SKELETON, **PERSON))
    assert labels.content == expected.content


def test_run_lengths_stay_bytes_in_the_records(records, register_records):
    code = {"size": [96, 128], "counts": b"0"}
    records[0]["annotations"][0]["segmentation"] = code
    labels = read_registered_labels(register_records(records, SKELETON, **PERSON))
    assert labels.content["annotations"][0]["segmentation"]["counts"] == "0"
    assert code["counts"] == b"0"


def test_classes_without_names_are_those_of_annotations(records, register_records):
    labels = read_registered_labels(register_records(records, SKELETON))
    assert labels.category_ids == {0: 0}
    records[0]["annotations"][0]["category_id"] = 2
    assert len(read_registered_labels(register_records(records, SKELETON)).category_ids) == 3


def test_classes_have_the_ids_of_the_metadata(records, register_records):
    ids = {"thing_dataset_id_to_contiguous_id": {7: 0}}
    labels = read_registered_labels(register_records(records, SKELETON, **PERSON, **ids))
    assert labels.category_ids == {7: 7}
    name = register_records(records, SKELETON, thing_classes=["person", "dog"], **ids)
    with pytest.raises(ValueError, match=r"has no category id for class 1 of 2; add it\."):
        read_registered_labels(name)


def test_crowd_levels_reach_crowdposes_evaluation(label_content, records_of, register_records):
    records = records_of(label_content(CROWDPOSE_SKELETON.keypoints))
    for record in records:
        record["crowdIndex"] = 0.5
    name = register_records(records, CROWDPOSE_SKELETON, evaluator_type="crowdpose", **PERSON)
    labels = read_registered_labels(name)
    assert [image["crowdIndex"] for image in labels.content["images"]] == [0.5, 0.5]
    areas = [person["area"] for person in labels.content["annotations"]]
    assert areas == [pytest.approx(0.53 * 24 * 64)] * 4


def changed_person(**changes):
    return lambda records: records[1]["annotations"][0].update(changes)


def without(*path):
    def change(records):
        *parents, key = path
        row = records[1]
        for parent in parents:
            row = row[parent]
        del row[key]

    return change


FAULTS = {
    "no_width": (without("width"), "record 1 (", "lacks width; add what is missing"),
    "no_id": (without("image_id"), "record 1 (", "lacks image_id; add what is missing"),
    "no_file": (without("file_name"), "record 1 (without file_name) lacks file_name", ""),
    "no_mode": (
        without("annotations", 0, "bbox_mode"),
        "annotation 0 of record 1 (",
        "lacks bbox_mode; add what is missing",
    ),
    "no_class": (
        without("annotations", 1, "category_id"),
        "annotation 1 of record 1 (",
        "lacks category_id; add what is missing",
    ),
    "relative_box": (
        changed_person(bbox_mode=BoxMode.XYXY_REL),
        "annotation 0 of record 1 (",
        "has the bbox_mode <BoxMode.XYXY_REL: 2>; write BoxMode.XYXY_ABS",
    ),
    "another_class": (
        changed_person(category_id=1),
        "annotation 0 of record 1 (",
        "has the category_id 1, but the classes in its dataset's metadata are 0 to 0",
    ),
    "short_box": (
        changed_person(bbox=[1, 2]),
        "annotation 0 of record 1 (",
        "has the box [1, 2], not four finite numbers",
    ),
    "few_keypoints": (
        changed_person(keypoints=[1, 2, 2]),
        "annotation 0 of record 1 (",
        "has 3 keypoint numbers, not 3 x 5",
    ),
    "no_numbers": (
        changed_person(keypoints="none"),
        "annotation 0 of record 1 (",
        "has the keypoints 'none'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_dataset_record_and_field_of_a_fault_are_named(records, register_records, fault):
    change, row, sentence = FAULTS[fault]
    change(records)
    name = register_records(records, SKELETON, **PERSON)
    [refusal] = examine_registered_labels(name).refusals
    assert refusal.startswith(row) and sentence in refusal
    with pytest.raises(ValueError) as refused:
        read_registered_labels(name)
    assert str(refused.value) == f"{name}: {refusal}."


def test_a_dataset_without_records_is_refused(register_records):
    with pytest.raises(ValueError, match=r"the function .* gives no record; return one for every"):
        read_registered_labels(register_records([], SKELETON, **PERSON))
