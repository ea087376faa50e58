"""Every dataset with a label file is read by one loader, whoever registered it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.structures import BoxMode

from querypose.data.datasets.records import load_records, load_training_records
from querypose.skeleton import COCO_SKELETON


@pytest.fixture
def content(label_content) -> dict[str, Any]:
    """Two images with two people each, with COCO's keypoints."""
    return label_content(COCO_SKELETON.keypoints)


@pytest.fixture
def register(write_labels, temporary_datasets, tmp_path: Path) -> Callable[..., str]:
    """``register(content)``: a dataset registered as Detectron2 registers COCO's keypoints."""
    builtin = MetadataCatalog.get("keypoints_coco_2017_train")
    keys = ("thing_classes", "keypoint_names", "keypoint_flip_map", "keypoint_connection_rules")

    def make(content: dict[str, Any], *left_out: str, loader: Callable | None = None) -> str:
        name = f"records_{tmp_path.name}_{len(temporary_datasets)}"
        json_file = str(write_labels(content, f"{name}.json"))
        metadata = {key: builtin.get(key) for key in keys if key not in left_out}
        if loader is None:
            register_coco_instances(name, metadata, json_file, str(tmp_path))
        else:
            DatasetCatalog.register(name, loader)
            files = {"json_file": json_file, "image_root": str(tmp_path)}
            files = {key: value for key, value in files.items() if key not in left_out}
            MetadataCatalog.get(name).set(**files, **metadata)
        temporary_datasets.append(name)
        return name

    return make


PERSON = {
    "bbox": [0, 0, 9, 9],
    "bbox_mode": BoxMode.XYXY_ABS,
    "category_id": 0,
    "keypoints": [1, 1, 2],
}


def training_records(*names: str, filter_empty: bool = True, min_keypoints: int = 1):
    return load_training_records(names, filter_empty=filter_empty, min_keypoints=min_keypoints)


def test_a_set_that_detectron2_registered_has_areas(register, content):
    name = register(content)
    ours, theirs = load_records(name), DatasetCatalog.get(name)
    assert [p["area"] for record in ours for p in record["annotations"]] == [800] * 4
    assert not any("area" in p for record in theirs for p in record["annotations"])
    # Apart from what Detectron2 drops, both loaders agree.
    for own, other in zip(ours, theirs, strict=True):
        assert {k: own[k] for k in own if k != "annotations"} == {
            k: other[k] for k in other if k != "annotations"
        }
        for person, plain in zip(own["annotations"], other["annotations"], strict=True):
            assert {key: person[key] for key in plain} == plain


def test_a_set_that_detectron2_registered_goes_through_the_label_step(register, content):
    del content["annotations"][0]["area"], content["annotations"][0]["iscrowd"]
    person = load_records(register(content))[0]["annotations"][0]
    assert (person["iscrowd"], person["area"]) == (0, pytest.approx(0.53 * 24 * 64))
    content["annotations"][0]["bbox"] = None
    with pytest.raises(ValueError, match="annotation 1 has the box None"):
        load_records(register(content))


def test_registrations_stay(register, content):
    registered = DatasetCatalog["keypoints_coco_2017_train"]
    assert registered.__module__.startswith("detectron2.")
    name = register(content)
    loader = DatasetCatalog[name]
    training_records(name)
    assert DatasetCatalog[name] is loader


@pytest.mark.parametrize("left_out", ["json_file", "image_root", "keypoint_names"])
def test_without_label_metadata_the_registered_function_counts(register, content, left_out):
    records = [{"file_name": "a.png", "annotations": []}]
    assert load_records(register(content, left_out, loader=lambda: records)) == records


def test_paths_of_images_become_text(register, content, tmp_path):
    records = [{"file_name": tmp_path / "1.png", "annotations": []}]
    name = register(content, "json_file", loader=lambda: records)
    assert load_records(name) == [{"file_name": str(tmp_path / "1.png"), "annotations": []}]
    assert records[0]["file_name"] == tmp_path / "1.png"


def test_a_function_that_is_passed_over_is_named(register, content, tmp_path, caplog):
    def first_image_only():
        return load_coco_json(str(next(tmp_path.glob("*.json"))), str(tmp_path))[:1]

    name = register(content, loader=first_image_only)
    assert len(load_records(name)) == 2
    assert f"'{name}' is read from the json_file of its metadata" in caplog.text
    assert first_image_only.__module__ in caplog.text


def test_images_without_enough_labels_are_left_out(register, content):
    nobody, crowd, unlabeled = (copy.deepcopy(content) for _ in range(3))
    nobody["annotations"] = nobody["annotations"][:2]
    assert len(training_records(register(nobody))) == 1
    assert len(training_records(register(nobody), filter_empty=False, min_keypoints=0)) == 2
    for person in crowd["annotations"][2:]:
        person["iscrowd"] = 1
    assert len(training_records(register(crowd))) == 1
    assert len(training_records(register(crowd), filter_empty=False)) == 2
    unlabeled["annotations"][3]["keypoints"] = None
    assert len(training_records(register(unlabeled), min_keypoints=17)) == 2
    assert len(training_records(register(unlabeled), min_keypoints=18)) == 1


@pytest.mark.parametrize(
    "shaped",
    [
        lambda flat: flat,
        np.array,
        lambda flat: np.reshape(flat, (-1, 3)),
        lambda flat: np.reshape(flat, (-1, 3)).tolist(),
    ],
    ids=["list", "array", "(K, 3)", "nested"],
)
def test_keypoints_count_in_whatever_shape_they_come(register, content, shaped):
    labeled = {"all": [2, 2, 2, 2], "three": [2, 2, 0, 2], "one": [1, 0, 0, 0], "none": [0] * 4}
    records = [
        {
            "file_name": name,
            "annotations": [
                PERSON | {"keypoints": shaped([x for flag in flags for x in (5, 5, flag)])},
                PERSON | {"keypoints": None},
            ],
        }
        for name, flags in labeled.items()
    ]
    name = register(content, "json_file", loader=lambda: records)
    for least, expected in {1: ["all", "three", "one"], 3: ["all", "three"]}.items():
        kept = training_records(name, min_keypoints=least)
        assert [record["file_name"] for record in kept] == expected


def test_several_sets_are_joined_in_order(register, content):
    names = register(content), register(content)
    files = [record["file_name"] for record in training_records(*names)]
    assert files == 2 * files[:2]


def test_sets_of_different_classes_are_refused(register, content):
    other = copy.deepcopy(content)
    other["categories"][0]["name"] = "dog"
    names = register(content), register(other, "thing_classes")
    with pytest.raises(ValueError, match="different metadata 'thing_classes'"):
        training_records(*names)


def test_a_category_without_a_class_is_named(register, content):
    record = {"file_name": "a.png", "annotations": [PERSON | {"category_id": 3}]}
    name = register(content, "json_file", loader=lambda: [record])
    with pytest.raises(ValueError, match=r"no class: .*category_id=3"):
        training_records(name)


@pytest.mark.parametrize("empty", ["images", "names"])
def test_nothing_to_train_on(register, content, empty):
    content["annotations"] = []
    names = [register(content)] if empty == "images" else []
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN has no image to train on"):
        training_records(*names)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"annotations": []}, r"record 1 \(without file_name\) lacks file_name; add"),
        ({"file_name": "b.png"}, r"record 1 \(b.png\) lacks annotations; add"),
        (
            {"file_name": "b.png", "annotations": [PERSON, {"bbox": [0, 0, 9, 9]}]},
            r"annotation 1 of record 1 \(b.png\) lacks bbox_mode and category_id; add",
        ),
    ],
)
def test_a_record_to_train_on_has_labels(register, content, record, message):
    records = [{"file_name": "a.png", "annotations": [PERSON]}, record]
    name = register(content, "json_file", loader=lambda: records)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        training_records(name)


def test_a_crowd_needs_a_region_alone(register, content):
    crowd = {"iscrowd": 1, "category_id": 0, "segmentation": {"size": [9, 9], "counts": b"0"}}
    records = [{"file_name": "a.png", "annotations": [PERSON, crowd]}]
    assert len(training_records(register(content, "json_file", loader=lambda: records))) == 1
