"""What a label file may leave out or write otherwise, at any place in it."""

from __future__ import annotations

import copy
import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from querypose.data import register_coco_keypoints
from querypose.data.datasets.labels import examine_labels, read_labels
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON, Skeleton

FIVE = Skeleton(("nose", "left_hand", "right_hand", "left_foot", "right_foot"))
BOX_AREA = 24 * 64
MISSING = "MISSING"


def changed(content, number, **changes):
    """The annotation of a file, changed; ``MISSING`` takes a field away."""
    person = content["annotations"][number]
    for key, value in changes.items():
        if value is MISSING:
            del person[key]
        else:
            person[key] = value
    return content


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    ("changes", "derived", "message"),
    [
        ({"iscrowd": MISSING}, {"iscrowd": 0}, "iscrowd is missing"),
        ({"iscrowd": None}, {"iscrowd": 0}, "iscrowd is missing"),
        ({"num_keypoints": MISSING}, {"num_keypoints": 5}, "num_keypoints is missing or wrong"),
        ({"num_keypoints": None}, {"num_keypoints": 5}, "num_keypoints is missing or wrong"),
        ({"num_keypoints": 0}, {"num_keypoints": 5}, "num_keypoints is missing or wrong"),
        ({"num_keypoints": 17}, {"num_keypoints": 5}, "num_keypoints is missing or wrong"),
        ({"area": MISSING}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": None}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": 0}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": 0.0}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": -800}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": 1}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": 128 * 96}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        ({"area": 1e30}, {"area": 0.53 * BOX_AREA}, "the area is missing, 0 or absurd"),
        (
            {"keypoints": MISSING},
            {"keypoints": [0] * 15, "num_keypoints": 0},
            "keypoints are missing",
        ),
        ({"keypoints": None}, {"keypoints": [0] * 15, "num_keypoints": 0}, "keypoints are missing"),
        ({"keypoints": []}, {"keypoints": [0] * 15, "num_keypoints": 0}, "keypoints are missing"),
        (
            {"segmentation": [[1, 1, 5, 5]]},
            {"segmentation": [], "num_keypoints": 5},
            "a polygon has less than three points",
        ),
        (
            {"segmentation": [[], [1, 1, 5, 5, 9], [1, 1, 5, 5, 9, 1]]},
            {"segmentation": [[1, 1, 5, 5, 9, 1]]},
            "a polygon has less than three points",
        ),
        (
            {"segmentation": {"size": [32, 32], "counts": [1024]}},
            {"segmentation": None, "num_keypoints": 5},
            "a run-length code has another size than the image",
        ),
    ],
)
def test_an_annotation_is_completed(
    label_content, write_labels, caplog, number, changes, derived, message
):
    content = changed(label_content(), number, **changes)
    path = write_labels(content)
    before = path.read_bytes()

    labels = read_labels(str(path), FIVE)

    person = labels.content["annotations"][number]
    assert {key: person.get(key) for key in derived} == derived
    (line,) = [record.getMessage() for record in caplog.records if message in record.getMessage()]
    assert line.startswith(f"{path}: ")
    assert line.endswith(f"(1 of 4 annotations, annotation {number + 1} for one).")
    assert path.read_bytes() == before
    others = [index for index in range(4) if index != number]
    untouched = label_content()["annotations"]
    assert [labels.content["annotations"][i] for i in others] == [untouched[i] for i in others]


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [18, 10, 0, 0], [30, 20, 0, 64], [42, 74, -24, -64]])
def test_a_box_without_extent_is_that_of_the_labeled_keypoints(label_content, write_labels, box):
    keypoints = [30, 20, 2, 40, 45, 1, 20, 45, 2, 36, 70, 2, 99, 99, 0]
    content = changed(label_content(), 2, bbox=box, keypoints=keypoints, num_keypoints=4, area=0)
    labels = read_labels(str(write_labels(content)), FIVE)
    person = labels.content["annotations"][2]
    # From the first to behind the last pixel of a keypoint.
    assert person["bbox"] == [20, 20, 21, 51]
    assert person["area"] == pytest.approx(0.53 * 21 * 51)


def test_one_keypoint_is_an_extent(label_content, write_labels):
    keypoints = [30, 20, 2] + [0] * 12
    content = changed(label_content(), 0, bbox=[0, 0, 0, 0], keypoints=keypoints, num_keypoints=1)
    labels = read_labels(str(write_labels(content)), FIVE)
    assert labels.content["annotations"][0]["bbox"] == [30, 20, 1, 1]


def test_a_box_without_extent_beside_no_keypoint_stays(label_content, write_labels):
    """Official files have some; training drops them, and evaluation ignores them."""
    nobody = {"bbox": [30, 20, 5, 0], "area": 0, "keypoints": [0] * 15, "num_keypoints": 0}
    labels = read_labels(str(write_labels(changed(label_content(), 0, **nobody))), FIVE)
    assert labels.content["annotations"][0]["bbox"] == [30, 20, 5, 0]
    assert labels.remarks == ()


@pytest.mark.parametrize("area", [0.02 * BOX_AREA, 0.5, BOX_AREA, 1.5 * BOX_AREA])
def test_areas_of_people_who_are_hidden_or_exceed_their_box_stay(label_content, write_labels, area):
    content = changed(label_content(), 0, area=area)
    if area < 1:
        content["annotations"][0]["bbox"][2:] = [2.2, 1.1]
    labels = read_labels(str(write_labels(content)), FIVE)
    assert labels.content["annotations"][0]["area"] == area
    assert labels.remarks == ()


def test_crowdpose_counts_and_measures_as_its_benchmark(label_content, write_labels):
    """It leaves head and neck out of num_keypoints, and takes no area from a file."""
    content = label_content(CROWDPOSE_SKELETON.keypoints)
    head_alone = [0] * 36 + [30, 20, 2, 0, 0, 0]
    changed(content, 0, keypoints=head_alone, num_keypoints=0)
    changed(content, 1, num_keypoints=MISSING)
    del content["annotations"][2]["area"]
    labels = read_labels(str(write_labels(content)), CROWDPOSE_SKELETON, areas_from_boxes=True)
    people = labels.content["annotations"]
    assert [person["num_keypoints"] for person in people] == [0, 12, 12, 12]
    assert {person["area"] for person in people} == {0.53 * 24 * 64}
    assert len(labels.remarks) == 1 and "num_keypoints is missing" in labels.remarks[0]


ANNOTATION_IDS = [
    [0, 1, 2, 3],
    [4, 3, 2, 0],
    ["a", "b", "c", "d"],
    [1, "1", 2, "2"],
    [2**63 + 1, 2**63 + 2, 2**63 + 3, 2**64],
    [-1, -2, -3, -4],
    [1, 2, 3, None],
    [1, 2, 3, MISSING],
    [MISSING] * 4,
    [1.5, 2, 3, 4],
]


@pytest.mark.parametrize("ids", ANNOTATION_IDS, ids=str)
def test_annotations_are_numbered(label_content, write_labels, ids):
    content = label_content()
    for number, row_id in enumerate(ids):
        changed(content, number, id=row_id)
    labels = read_labels(str(write_labels(content)), FIVE)
    assert [person["id"] for person in labels.content["annotations"]] == [1, 2, 3, 4]
    (remark,) = labels.remarks
    assert remark.startswith("the id is missing, a string or out of range")


IMAGE_IDS = [
    ("b.png", "a.png"),
    ("7", 7),
    (2**63 + 5, 3),
    (2**64, -(2**63)),
    (9007199254740993, 9007199254740992),
    (-1, 5),
]


@pytest.mark.parametrize("ids", IMAGE_IDS, ids=str)
@pytest.mark.parametrize("category_id", [1, "person", 2**63])
def test_images_and_categories_are_numbered(label_content, register_labels, ids, category_id):
    content = label_content()
    for image, row_id in zip(content["images"], ids, strict=True):
        image["id"] = row_id
    for number in range(4):
        changed(content, number, image_id=ids[number // 2], category_id=category_id)
    content["categories"][0]["id"] = category_id
    name = register_labels(content)

    records = {record["image_id"]: record for record in DatasetCatalog.get(name)}

    assert set(records) == set(ids)
    assert [len(records[row_id]["annotations"]) for row_id in ids] == [2, 2]
    assert [records[row_id]["file_name"][-5:] for row_id in ids] == ["1.png", "2.png"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {category_id: 0}
    labels = examine_labels(MetadataCatalog.get(name).json_file, FIVE)
    assert sorted(image["id"] for image in labels.content["images"]) == [1, 2]


def test_ids_that_tools_take_stay(label_content, write_labels):
    content = label_content()
    content["images"][0]["id"] = 0
    for number, row_id in enumerate((17, 2**53 - 1, 5, 3)):
        changed(content, number, id=row_id, image_id=2 * (number // 2))
    labels = read_labels(str(write_labels(content)), FIVE)
    assert [person["id"] for person in labels.content["annotations"]] == [17, 2**53 - 1, 5, 3]
    assert labels.remarks == ()


def test_a_sound_file_stays_as_it_is(label_content, write_labels, caplog):
    content = label_content()
    content["info"] = {"year": 2020}
    changed(content, 1, iscrowd=1, segmentation={"size": [96, 128], "counts": [96 * 64, 96 * 64]})
    changed(content, 2, segmentation=[[1, 1, 9, 1, 9, 9]])
    changed(content, 3, keypoints=[0] * 15, num_keypoints=0)
    labels = read_labels(str(write_labels(content)), FIVE)
    assert labels.content == content
    assert not caplog.records


def test_what_is_derived_is_told_once(label_content, register_labels, caplog):
    content = label_content()
    for number in range(4):
        changed(content, number, area=0, num_keypoints=MISSING)
    name = register_labels(content)
    for _ in range(3):
        DatasetCatalog.get(name)
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [line.split(": ")[1] for line in lines] == [
        "num_keypoints is missing or wrong",
        "the area is missing, 0 or absurd for the box",
    ]
    assert all("(4 of 4 annotations, annotation 1 for one)" in line for line in lines)


def without_areas(records):
    records = copy.deepcopy(records)
    for record in records:
        for person in record["annotations"]:
            person.pop("area")
    return records


def test_records_of_a_sound_file_are_detectron2s(label_content, register_labels, tmp_path):
    content = label_content()
    content["images"].reverse()
    counts = [96 * 64, 96 * 64]
    changed(content, 1, iscrowd=1, segmentation={"size": [96, 128], "counts": counts})
    changed(content, 2, segmentation=[[1, 1, 9, 1, 9, 9.5]], bbox=[18.5, 10, 24, 64.25])
    name = register_labels(content)
    expected = load_coco_json(MetadataCatalog.get(name).json_file, str(tmp_path), name)
    records = DatasetCatalog.get(name)
    assert without_areas(records) == expected
    assert records[0]["annotations"][0]["area"] == 800


REAL = {
    "coco_person/annotations/person_keypoints_train.json": COCO_SKELETON,
    "coco_fullsize/annotations/person_keypoints_train2017.json": COCO_SKELETON,
    "coco_fullsize/annotations/person_keypoints_val2017.json": COCO_SKELETON,
    "crowdpose/json/crowdpose_val.json": CROWDPOSE_SKELETON,
    "crowdpose/json/crowdpose_mmpose_test.json": CROWDPOSE_SKELETON,
    "ochuman/annotations/test_ochuman.json": COCO_SKELETON,
    "evaluators/example_coco_val.json": COCO_SKELETON,
    "evaluators/example_crowdpose_val.json": CROWDPOSE_SKELETON,
}


@pytest.mark.parametrize("file", REAL)
def test_official_files_are_sound(real_data, file):
    path, skeleton = real_data / file, REAL[file]
    is_crowdpose = skeleton is CROWDPOSE_SKELETON
    labels = read_labels(str(path), skeleton, areas_from_boxes=is_crowdpose)
    assert labels.remarks == ()
    content = json.loads(path.read_text())
    if is_crowdpose:
        for person in (*labels.content["annotations"], *content["annotations"]):
            person.pop("area", None)
    assert labels.content == content


def test_records_of_official_files_are_detectron2s(real_data):
    name, folder = "official_labels", real_data / "coco_fullsize"
    json_file = str(folder / "annotations" / "person_keypoints_val2017.json")
    register_coco_keypoints(name, json_file, folder / "val2017")
    try:
        expected = load_coco_json(json_file, str(folder / "val2017"), name)
        assert without_areas(DatasetCatalog.get(name)) == expected
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
