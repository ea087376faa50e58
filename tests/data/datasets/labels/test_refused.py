"""What contradicts itself: training, evaluation and check refuse it in the same sentence."""

from __future__ import annotations

import copy
import math

import pytest
from detectron2.data import MetadataCatalog

from querypose.config import read_config
from querypose.engine import QueryPoseTrainer
from querypose.evaluation import CrowdPoseEvaluator, KeypointEvaluator, evaluate_crowdpose
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON
from querypose.tools import check_dataset

NAN, INF = math.nan, math.inf


def row(table, number, **changes):
    """A change of one row of a file."""

    def change(content):
        content[table][number] |= changes

    return change


def without(table, number, key):
    def change(content):
        del content[table][number][key]

    return change


def number_of(key, index, value):
    """A change of one number in a list of an annotation."""

    def change(content):
        content["annotations"][3][key][index] = value

    return change


def another_category(**changes):
    def change(content):
        content["categories"].append({"id": 2, "name": "child"} | changes)

    return change


def reordered(content):
    names = content["categories"][0]["keypoints"]
    content["categories"].append({"id": 2, "name": "child", "keypoints": names[::-1]})


def renamed_order(content):
    """The file's order against the skeleton's: only a declared skeleton can show it."""
    names = content["categories"][0]["keypoints"]
    names[0], names[5] = names[5], names[0]


BAD = {
    "two_images_of_one_id": (row("images", 1, id=1), "image 1 occurs twice"),
    "image_without_id": (without("images", 0, "id"), "number 0 of 'images' has the id None"),
    "image_of_fractional_id": (row("images", 0, id=1.5), "number 0 of 'images' has the id 1.5"),
    "image_of_boolean_id": (row("images", 1, id=True), "number 1 of 'images' has the id True"),
    "image_without_file": (row("images", 0, file_name=None), "image 1 has the file_name None"),
    "image_of_no_file": (row("images", 0, file_name=""), "image 1 has the file_name ''"),
    "text_as_width": (row("images", 1, width="128"), "image 2 has the width and height ['128'"),
    "no_height": (row("images", 1, height=0), "image 2 has the width and height [128, 0]"),
    "nan_as_height": (row("images", 1, height=NAN), "image 2 has the width and height [128, nan]"),
    "nan_beside_an_image": (row("images", 1, date=[NAN]), "image 2 holds NaN or an infinity in"),
    "two_categories_of_one_id": (another_category(id=1), "category 1 occurs twice"),
    "category_without_name": (row("categories", 0, name=None), "category 1 has the name None"),
    "keypoints_as_text": (
        another_category(keypoints="nose"),
        "category 2 has the keypoints 'nose'",
    ),
    "keypoint_names_reordered": (reordered, "category 2 lists other keypoints than the categories"),
    "keypoint_names_differ": (
        another_category(keypoints=[f"point_{i}" for i in range(14)]),
        "category 2 lists other keypoints than the categories before it, or in another order",
    ),
    "fewer_keypoint_names": (
        another_category(keypoints=["nose"]),
        "category 2 lists other keypoints than the categories before it",
    ),
    "two_annotations_of_one_id": (row("annotations", 3, id=2), "annotation 2 occurs twice"),
    "annotation_of_nested_id": (
        row("annotations", 3, id=[4]),
        "number 3 of 'annotations' has the id [4]",
    ),
    "no_such_image": (row("annotations", 3, image_id=9), "annotation 4 is of image 9, which is"),
    "image_as_text": (row("annotations", 3, image_id="1"), "annotation 4 is of image '1', which"),
    "no_image": (without("annotations", 3, "image_id"), "annotation 4 is of image None"),
    "no_such_category": (row("annotations", 3, category_id=9), "annotation 4 has category 9"),
    "nested_category": (row("annotations", 3, category_id=[1]), "annotation 4 has category [1]"),
    "no_box": (without("annotations", 3, "bbox"), "annotation 4 has the box None"),
    "short_box": (row("annotations", 3, bbox=[1, 2, 3]), "annotation 4 has the box [1, 2, 3]"),
    "text_in_box": (number_of("bbox", 1, "10"), "annotation 4 has the box [68, '10', 24, 64]"),
    "nan_in_box": (number_of("bbox", 1, NAN), "annotation 4 has the box [68, nan, 24, 64]"),
    "infinity_in_box": (number_of("bbox", 2, INF), "annotation 4 has the box [68, 10, inf, 64]"),
    "boolean_in_box": (number_of("bbox", 1, True), "annotation 4 has the box [68, True, 24, 64]"),
    "huge_number_in_box": (number_of("bbox", 1, 10**40), "annotation 4 has the box [68, 1000"),
    "short_keypoints": (
        row("annotations", 3, keypoints=[1, 2, 2]),
        "annotation 4 has 3 keypoint numbers, not 3 x 14 = 42",
    ),
    "keypoints_of_another_count": (
        row("annotations", 3, keypoints=[1] * 51),
        "annotation 4 has 51 keypoint numbers, not 3 x 14 = 42",
    ),
    "nested_keypoints": (
        row("annotations", 3, keypoints=[[1, 2, 2]] * 14),
        "annotation 4 has the keypoints [[1, 2, 2],",
    ),
    "keypoints_no_list": (
        row("annotations", 3, keypoints={"nose": 1}),
        "annotation 4 has the keypoints {'nose': 1}",
    ),
    "nan_in_keypoints": (number_of("keypoints", 3, NAN), "annotation 4 has nan among its keyp"),
    "infinity_in_keypoints": (
        number_of("keypoints", 41, -INF),
        "annotation 4 has -inf among its keypoints",
    ),
    "null_in_keypoints": (number_of("keypoints", 3, None), "annotation 4 has None among its"),
    "text_in_keypoints": (number_of("keypoints", 3, "30"), "annotation 4 has '30' among its"),
    "boolean_in_keypoints": (number_of("keypoints", 2, True), "annotation 4 has True among its"),
    "text_as_num_keypoints": (
        row("annotations", 3, num_keypoints="five"),
        "annotation 4 has the num_keypoints 'five', no finite number",
    ),
    "text_as_area": (row("annotations", 3, area="800"), "annotation 4 has the area '800', no fin"),
    "nan_as_area": (row("annotations", 3, area=NAN), "annotation 4 has the area nan, no finite"),
    "infinity_as_area": (row("annotations", 3, area=INF), "annotation 4 has the area inf, no fin"),
    "text_as_iscrowd": (row("annotations", 3, iscrowd="0"), "annotation 4 has the iscrowd '0'"),
    "another_iscrowd": (row("annotations", 3, iscrowd=2), "annotation 4 has the iscrowd 2"),
    "nan_in_a_polygon": (
        row("annotations", 3, segmentation=[[1, 1, 9, 1, NAN, 9]]),
        "annotation 4 has a segmentation that is neither",
    ),
    "text_in_a_polygon": (
        row("annotations", 3, segmentation=[["1", 1, 9, 1, 9, 9]]),
        "annotation 4 has a segmentation that is neither",
    ),
    "polygon_without_list": (
        row("annotations", 3, segmentation=[1, 1, 9, 1, 9, 9]),
        "annotation 4 has a segmentation that is neither",
    ),
    "runs_beyond_the_image": (
        row("annotations", 3, segmentation={"size": [96, 128], "counts": [10, 10**6]}),
        "annotation 4 has a segmentation that is neither",
    ),
    "runs_of_text": (
        row("annotations", 3, segmentation={"size": ["96", 128], "counts": "abc"}),
        "annotation 4 has a segmentation that is neither",
    ),
    "ignored": (row("annotations", 3, ignore=1), "annotation 4 is marked by 'ignore'"),
    "nan_in_an_attribute": (
        row("annotations", 3, attributes={"blur": [0.1, NAN]}),
        "annotation 4 holds NaN or an infinity in 'attributes'",
    ),
    "nan_in_the_info": (
        lambda content: content.update(info={"version": NAN}),
        "'info' holds NaN or an infinity",
    ),
    "no_list": (lambda content: content.update(images={"id": 1}), "'images' is no list of objects"),
    "rows_no_objects": (
        lambda content: content["annotations"].append(7),
        "'annotations' is no list of objects",
    ),
    "no_images": (
        lambda content: content.update(images=[], annotations=[]),
        "'images' is empty",
    ),
    "no_categories": (
        lambda content: content.update(categories=[], annotations=[]),
        "'categories' is empty",
    ),
    "no_annotations": (lambda content: content.pop("annotations"), "it lacks ['annotations']"),
    "order_against_the_skeleton": (
        renamed_order,
        "category 1 lists the keypoint 'right_wrist' in position 0, where the skeleton has",
    ),
}


@pytest.fixture
def tiny_config(repository):
    """A config of this training set."""
    path = repository / "configs" / "quick" / "tiny.yaml"
    return lambda name: read_config(path, ["DATASETS.TRAIN", f"('{name}',)"])


def refusal_of(action):
    with pytest.raises(ValueError) as refused:
        action()
    sentence = str(refused.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("fault", BAD)
def test_training_evaluation_and_check_refuse_alike(
    label_content, register_labels, tiny_config, fault, capsys
):
    content = label_content(CROWDPOSE_SKELETON.keypoints)
    change, sentence = BAD[fault]
    change(content)
    name = register_labels(content, CROWDPOSE_SKELETON, evaluator_type="crowdpose")
    json_file = MetadataCatalog.get(name).json_file

    trained = refusal_of(lambda: QueryPoseTrainer.build_train_loader(tiny_config(name)))
    assert json_file in trained and sentence in trained
    evaluations = (
        lambda: KeypointEvaluator(name),
        lambda: CrowdPoseEvaluator(name),
        lambda: evaluate_crowdpose(json_file, "nowhere.json"),
    )
    assert {refusal_of(evaluation) for evaluation in evaluations} == {trained}
    assert any(sentence in found for found in check_dataset.find_problems(name)[json_file])
    assert check_dataset.main([name]) == 1
    assert sentence in capsys.readouterr().out


DERIVED = {
    "sound": lambda content: None,
    "ids": lambda content: [row.update(id=f"{row['id']}") for row in content["annotations"]],
    "no_ids": lambda content: [row.pop("id") for row in content["annotations"]],
    "area": row("annotations", 3, area=0),
    "no_area": without("annotations", 3, "area"),
    "box": row("annotations", 3, bbox=[0, 0, 0, 0]),
    "crowd": row("annotations", 3, iscrowd=None),
    "keypoints": row("annotations", 3, keypoints=None),
    "num_keypoints": without("annotations", 3, "num_keypoints"),
    "polygon": row("annotations", 3, segmentation=[[1, 2]]),
    "runs_of_another_size": row(
        "annotations", 3, segmentation={"size": [32, 32], "counts": [1024]}
    ),
    "true_as_iscrowd": row("annotations", 3, iscrowd=True),
    "renamed_keypoints": row("categories", 0, keypoints=[f"point {i}" for i in range(17)]),
    "category_without_keypoints": another_category(),
}


@pytest.mark.parametrize("gap", DERIVED)
def test_training_evaluation_and_check_take_alike(label_content, register_labels, tiny_config, gap):
    content = label_content()
    content["annotations"] = copy.deepcopy(content["annotations"])
    for person in content["annotations"]:
        person["keypoints"] += [0] * 36
    content["categories"][0]["keypoints"] = list(COCO_SKELETON.keypoints)
    DERIVED[gap](content)
    name = register_labels(content, COCO_SKELETON)
    loader = QueryPoseTrainer.build_train_loader(tiny_config(name))
    assert [len(record["annotations"]) for record in loader.records] == [2, 2]
    KeypointEvaluator(name)
    assert check_dataset.find_problems(name) == {}


def test_the_first_of_several_is_named_with_their_number(
    label_content, register_labels, tiny_config
):
    content = label_content()
    for person in content["annotations"][1:]:
        person["area"] = "big"
    name = register_labels(content)
    sentence = refusal_of(lambda: QueryPoseTrainer.build_train_loader(tiny_config(name)))
    assert "annotation 2 has the area 'big'" in sentence
    assert sentence.endswith("(2 more: querypose-check).")


def test_infinity_beyond_the_largest_float_is_found(write_labels, label_content, register_labels):
    """JSON has no word for it: 1e999 is read as one."""
    content = label_content()
    content["annotations"][0]["area"] = 123456
    name = register_labels(content)
    path = write_labels(content, "people_0.json")
    path.write_text(path.read_text().replace("123456", "1e999"))
    with pytest.raises(ValueError, match="annotation 1 has the area inf"):
        KeypointEvaluator(name)
