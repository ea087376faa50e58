from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from querypose.data import register_coco_keypoints
from querypose.skeleton import COCO_SKELETON
from querypose.tools import check_dataset

COUNTER = itertools.count()
KEYPOINTS = [10.0, 10.0, 2.0] * 17
NAN = float("nan")


def write_image(path: Path, width: int = 40, height: int = 30) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def person(**changes):
    sound = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 5, 20, 20],
        "area": 200,
        "iscrowd": 0,
        "keypoints": KEYPOINTS,
        "num_keypoints": 17,
    }
    return sound | changes


def content(people, images=None):
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    category = {"id": 1, "name": "person"}
    return {"images": images or [image], "annotations": people, "categories": [category]}


def register(folder: Path, written) -> str:
    write_image(folder / "a.png")
    json_file = folder / "people.json"
    json_file.write_text(written if isinstance(written, str) else json.dumps(written))
    name = f"checked_{next(COUNTER)}"
    register_coco_keypoints(name, json_file, folder, COCO_SKELETON)
    return name


def faults(folder: Path, written) -> list[str]:
    """The problems, each after the name of its file without the folder."""
    problems = check_dataset.find_problems(register(folder, written))
    return [f"{Path(name).name}: {fault}" for name, found in problems.items() for fault in found]


def moved(x, y, flag=2.0):
    return [x, y, flag, *KEYPOINTS[3:]]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"bbox": [30, 5, 20, 20]}, "has the box [30, 5, 20, 20], which leaves the image"),
        ({"keypoints": moved(-9, 3)}, "has keypoint 0 at (-9, 3), outside the image"),
        ({"keypoints": moved(9, 99)}, "has keypoint 0 at (9, 99), outside the image"),
        ({"keypoints": moved(9, 9, 3)}, "has a keypoint of the visibility 3, not 0, 1 or 2"),
        (
            {"bbox": [5, 5, 0, 20], "keypoints": [0] * 51, "num_keypoints": 0},
            "has the box [5, 5, 0, 20] without an area",
        ),
    ],
)
def test_a_probable_mistake_is_reported(tmp_path, changes, fault):
    assert faults(tmp_path, content([person(**changes)])) == [f"a.png: annotation 1 {fault}"]


@pytest.mark.parametrize("who", [{"iscrowd": 1}, {"keypoints": [0] * 51, "num_keypoints": 0}])
def test_a_region_of_another_size_is_reported(tmp_path, who):
    """Dense methods alone read it, and no evaluation."""
    written = content([person(**who, segmentation={"size": [4, 2], "counts": [8]})])
    sentence = "has a segmentation of an image of 2 x 4, but the image has 40 x 30 pixels; correct"
    assert faults(tmp_path, written)[0].startswith(f"a.png: annotation 1 {sentence}")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bbox": [-0.5, 0, 41, 30.5]},
        {"keypoints": [0] * 51, "num_keypoints": 0},
        {"keypoints": moved(-9, -9, 0)},
        {"iscrowd": 1, "keypoints": [0] * 51, "num_keypoints": 0},
    ],
)
def test_a_correct_person_has_no_problem(tmp_path, changes):
    assert faults(tmp_path, content([person(**changes)])) == []


def test_all_problems_of_a_refused_file_are_reported(tmp_path):
    people = [
        person(bbox=[5, 5, NAN, 20]),
        person(id=2, image_id=8),
        person(id=3, category_id=4),
        person(id=4, keypoints=moved(9, 99)),
    ]
    found = faults(tmp_path, content(people))
    beginnings = (
        "people.json: annotation 1 has the box [5, 5, nan, 20], not four finite numbers",
        "people.json: annotation 2 is of image 8, which is not in 'images'",
        "people.json: annotation 3 has category 4, which is not in 'categories'",
        "a.png: annotation 4 has keypoint 0 at (9, 99), outside the image",
    )
    assert len(found) == len(beginnings)
    assert all(map(str.startswith, found, beginnings))


@pytest.mark.parametrize(
    ("ids", "name"), [((0, 7), "annotation 7"), (("a", "b"), "annotation 'b'"), ((1, None), "numb")]
)
def test_annotations_are_named_by_the_ids_in_the_file(tmp_path, ids, name):
    people = [person(id=ids[0]), person(id=ids[1], keypoints=moved(9, 99))]
    (found,) = faults(tmp_path, content(people))
    assert found.startswith(f"a.png: {name}")
    assert found.endswith("has keypoint 0 at (9, 99), outside the image")


def test_an_image_listed_twice(tmp_path):
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    assert faults(tmp_path, content([], [image, image | {"id": 2}])) == [
        "people.json: lists a.png 2 times"
    ]


def test_broken_images(tmp_path):
    write_image(tmp_path / "cut.png", 64, 64)
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    write_image(tmp_path / "dot.png", 1, 1)
    sizes = {"missing.png": 9, "cut.png": 64, "text.jpg": 9, "dot.png": 1, "a.png": 41}
    images = [
        {"id": i, "file_name": name, "width": side, "height": side}
        for i, (name, side) in enumerate(sizes.items())
    ]
    found = faults(tmp_path, content([], images))
    assert [fault.split(":")[0] for fault in found] == list(sizes)
    expected = ("There is no image", "cannot be read", "cannot be read", "1 x 1 pixels")
    for fault, what in zip(found, (*expected, "40 x 30 pixels, but annotated as 41"), strict=True):
        assert what in fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "people.json is not valid JSON: Expecting property name"),
        ("[" * 100_000, "people.json is not valid JSON: "),
        ("[]", "lacks ['annotations', 'categories', 'images']"),
        ('{"images": [3], "annotations": [], "categories": []}', "'images' is no list of objects"),
    ],
)
def test_a_file_that_is_not_in_cocos_format(tmp_path, text, fault):
    (found,) = faults(tmp_path, text)
    assert fault in found


def test_command_reports_file_by_file_and_by_its_exit_code(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    names = []
    for folder, changes in (("good", {}), ("bad", {"area": "big"})):
        (tmp_path / folder).mkdir()
        names.append(register(tmp_path / folder, content([person(**changes)])))
    assert check_dataset.main([names[0]]) == 0
    assert f"{names[0]}: problems: 0" in capsys.readouterr().out

    config.write_text(
        f"DATASETS:\n  REGISTER: [[{names[1]}_again, {tmp_path}/bad/people.json, {tmp_path}/bad]]\n"
    )
    skeleton = {"keypoints": list(COCO_SKELETON.keypoints)}
    written = content([person(area="big")])
    written["categories"][0] |= skeleton
    (tmp_path / "bad/people.json").write_text(json.dumps(written))
    arguments = [names[1], f"{names[1]}_again", "--config-file", str(config)]
    assert check_dataset.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    fault = "annotation 1 has the area 'big', no finite number; leave it out, and it is derived"
    assert lines.count(f"{tmp_path}/bad/people.json: {fault}") == 2
    assert f"{names[1]}: problems: 1, files with problems: 1" in lines


def test_a_derived_value_is_logged_and_no_problem(tmp_path, capsys, caplog):
    name = register(tmp_path, content([person(area=0)]))
    assert check_dataset.main([name]) == 0
    assert f"{name}: problems: 0, files with problems: 0" in capsys.readouterr().out
    assert "the area is missing, 0 or absurd for the box: it is 0.53 of the box" in caplog.text


@pytest.mark.parametrize("metadata", [{}, {"thing_classes": ["person"], "image_root": "photos"}])
def test_records_are_examined_as_files_are(label_content, records_of, register_records, metadata):
    records = records_of(label_content(COCO_SKELETON.keypoints))
    name = register_records(records, COCO_SKELETON, **metadata)
    assert check_dataset.find_problems(name) == {}
    del records[0]["width"]
    records[1]["annotations"][1]["keypoints"][0] = 999
    [size] = check_dataset.find_problems(name)[name]
    assert size == f"record 0 ({records[0]['file_name']}) lacks width; add what is missing"
    [outside] = check_dataset.find_problems(name)[records[1]["file_name"]]
    assert outside.startswith("annotation 1 of record 1 (") and "has keypoint 0 at" in outside


def test_command_with_a_label_path_through_a_file(tmp_path):
    (tmp_path / "gt.json").write_text("{}")
    config = tmp_path / "config.yaml"
    entry = ["through", f"{tmp_path}/gt.json/y.json", str(tmp_path)]
    config.write_text(json.dumps({"DATASETS": {"REGISTER": [entry]}}))
    with pytest.raises(SystemExit, match=r"querypose-check: .*gt\.json/y\.json cannot be read: "):
        check_dataset.main(["through", "--config-file", str(config)])


def test_command_without_such_a_dataset():
    with pytest.raises(SystemExit, match="No dataset is registered as 'nowhere'"):
        check_dataset.main(["nowhere"])


def test_generated_and_real_datasets_have_no_problems(real_data):
    assert check_dataset.find_problems("synthetic_people_tiny") == {}
    name = f"checked_{next(COUNTER)}"
    folder = real_data / "coco_person"
    json_file = folder / "annotations" / "person_keypoints_val.json"
    register_coco_keypoints(name, json_file, folder / "val", COCO_SKELETON)
    assert check_dataset.find_problems(name) == {}


def test_options_count_without_a_config(tmp_path, temporary_datasets, capsys):
    write_image(tmp_path / "a.png")
    category = {"keypoints": list(COCO_SKELETON.keypoints)}
    written = content([person()])
    written["categories"][0] |= category
    (tmp_path / "people.json").write_text(json.dumps(written))
    name = f"optional_{next(COUNTER)}"
    temporary_datasets.append(name)
    entry = f"[['{name}', '{tmp_path / 'people.json'}', '{tmp_path}']]"
    assert check_dataset.main([name, "--opts", "DATASETS.REGISTER", entry]) == 0
    assert f"{name}: problems: 0" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"NOPE\.KEY"):
        check_dataset.main([name, "--opts", "NOPE.KEY", "1"])
