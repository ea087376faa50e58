"""Datasets that do not fit the model are refused before the first iteration."""

from __future__ import annotations

import copy
import re
import runpy

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from querypose.checkpoint import ModelDescription
from querypose.engine import QueryPoseTrainer
from querypose.engine.dataset_agreement import check_datasets, check_trained_classes
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON, Skeleton

NAMES = ["nose", "left_hand", "right_hand", "left_foot", "right_foot"]
KEYPOINTS = {
    "reversed": (NAMES[::-1], "their order is another, in position 0 is 'right_foot', not 'nose'"),
    "two_exchanged": (
        [*NAMES[:3], "right_foot", "left_foot"],
        "their order is another, in position 3 is 'right_foot', not 'left_foot'",
    ),
    "another_name": (
        [*NAMES[:4], "tail"],
        "their names differ, in position 4 is 'tail', not 'right_foot'",
    ),
    "one_less": (NAMES[:4], "it has 4 keypoints, not 5"),
    "one_more": ([*NAMES, "tail"], "it has 6 keypoints, not 5"),
}


@pytest.fixture
def cfg_of(tiny_config):
    def make(train, *test, **opts):
        keys = {key.replace("__", "."): value for key, value in opts.items()}
        return tiny_config(
            *("DATASETS.TRAIN", (train,), "DATASETS.TEST", test),
            *(item for pair in keys.items() for item in pair),
        )

    return make


@pytest.mark.parametrize("change", KEYPOINTS)
def test_a_test_set_of_other_keypoints(label_content, register_labels, cfg_of, start, change):
    names, sentence = KEYPOINTS[change]
    train = register_labels(label_content())
    tests = register_labels(label_content()), register_labels(label_content(names))
    with pytest.raises(ValueError) as refused:
        start(cfg_of(train, *tests))
    assert f"'{tests[1]}' in DATASETS.TEST does not have the model's keypoints" in str(
        refused.value
    )
    assert sentence in str(refused.value)


def test_the_declared_skeleton_counts_whatever_the_file_names(
    label_content, register_labels, cfg_of, start
):
    content = label_content()
    del content["categories"][0]["keypoints"]
    renamed = register_labels(content, Skeleton(tuple(NAMES)))
    start(cfg_of(register_labels(label_content()), renamed))


@pytest.mark.parametrize("name", ["keypoints_coco_2017_val", "crowdpose_val", "ochuman_val"])
def test_a_built_in_set_without_its_file(name, cfg_of):
    with pytest.raises(FileNotFoundError, match=r"There is no annotation file .*\.json"):
        check_datasets(cfg_of(name, name))


def test_mirror_images_are_those_of_the_model(label_content, register_labels, cfg_of):
    name = register_labels(label_content())
    without = Skeleton.from_metadata(MetadataCatalog.get(name)).to_dict() | {"flips": ()}
    opts = {"MODEL__SKELETON": Skeleton.from_dict(without).to_yaml()}
    with pytest.raises(ValueError, match="exchange different keypoints in mirror images"):
        QueryPoseTrainer.build_train_loader(cfg_of(name, **opts))
    QueryPoseTrainer.build_train_loader(cfg_of(name, **opts, INPUT__RANDOM_FLIP="none"))


def test_coco_keypoints_do_not_fit_crowdpose(cfg_of, start):
    with pytest.raises(ValueError, match=r"'crowdpose_test' in DATASETS.TEST .* 14 keypoints, not"):
        start(cfg_of("synthetic_people_tiny", "crowdpose_test"))


def test_test_labels_are_read_before_the_training(label_content, register_labels, cfg_of, start):
    content = label_content()
    broken = copy.deepcopy(content)
    broken["annotations"][3]["bbox"] = None
    names = register_labels(content), register_labels(broken)
    with pytest.raises(ValueError, match="annotation 4 has the box None"):
        start(cfg_of(*names))


def test_crowd_levels_are_asked_for_before_the_training(
    label_content, register_labels, cfg_of, start
):
    content = label_content(CROWDPOSE_SKELETON.keypoints)
    train = register_labels(content)
    content["images"][1]["crowdIndex"] = "high"
    name = register_labels(content, CROWDPOSE_SKELETON, evaluator_type="crowdpose")
    with pytest.raises(ValueError, match=r"1 of 2 images have no crowdIndex \(the first is image"):
        start(cfg_of(train, name))


def test_sigmas_of_another_count(label_content, register_labels, cfg_of, start):
    name = register_labels(label_content())
    with pytest.raises(ValueError, match=r"There are 3 OKS sigmas .* for the 5 keypoints"):
        start(cfg_of(name, name, TEST__KEYPOINT_OKS_SIGMAS=[0.1] * 3))


def with_dogs(content, *, dog_id, annotated=False):
    content["categories"].append({"id": dog_id, "name": "dog", "keypoints": NAMES})
    if annotated:
        content["annotations"][3]["category_id"] = dog_id
    return content


CLASSES = {"MODEL__QUERYPOSE__NUM_CLASSES": 2}


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_annotations_of_a_class_that_the_model_does_not_have(
    label_content, register_labels, cfg_of, start, split
):
    one = register_labels(label_content())
    two = register_labels(with_dogs(label_content(), dog_id=2, annotated=True))
    with pytest.raises(ValueError, match=rf"'{two}' in DATASETS.{split} has the categories .*dog"):
        start(cfg_of(two, one) if split == "TRAIN" else cfg_of(one, two))


def test_categories_without_annotations_do_not_matter(
    label_content, register_labels, cfg_of, start
):
    name = register_labels(with_dogs(label_content(), dog_id=2))
    start(cfg_of(name, name))


def test_a_method_of_one_class_whatever_the_key_of_another_says(
    label_content, register_labels, cfg_of
):
    two = register_labels(with_dogs(label_content(), dog_id=2, annotated=True))
    cfg = cfg_of(two, two, MODEL__META_ARCHITECTURE="PINet", **CLASSES)
    with pytest.raises(ValueError, match=rf"'{two}' .* but the number of classes of PINet is 1"):
        check_datasets(cfg)


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        ("GeneralizedRCNN", "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("RetinaNet", "MODEL.RETINANET.NUM_CLASSES"),
    ],
)
def test_a_detector_of_two_classes_learns_two_categories(
    label_content, register_labels, cfg_of, architecture, key
):
    two = register_labels(with_dogs(label_content(), dog_id=2, annotated=True))
    detector = {"MODEL__META_ARCHITECTURE": architecture, "MODEL__KEYPOINT_ON": False}
    check_datasets(cfg_of(two, two, **detector, **{key: 2}))
    with pytest.raises(ValueError, match=rf"{re.escape(key)} is 1; make both"):
        check_datasets(cfg_of(two, two, **detector, **{key: 1}))


class ModelOfOnesOwn(nn.Module):
    """Says nothing of its classes."""


@pytest.mark.parametrize("thing_classes", [[], ["person", "dog"]])
def test_classes_of_an_architecture_that_does_not_tell_their_number(
    label_content, records_of, register_records, cfg_of, thing_classes
):
    records = records_of(label_content())
    records[0]["annotations"][0]["category_id"] = 1
    name = register_records(records, FIVE, thing_classes=thing_classes)
    META_ARCH_REGISTRY._do_register("ModelOfOnesOwn", ModelOfOnesOwn)
    try:
        cfg = cfg_of(name, name, MODEL__META_ARCHITECTURE="ModelOfOnesOwn")
        check_datasets(cfg)
        QueryPoseTrainer.build_train_loader(cfg)
    finally:
        META_ARCH_REGISTRY._obj_map.pop("ModelOfOnesOwn")


@pytest.mark.parametrize("architecture", ["QueryPose", "GeneralizedRCNN"])
def test_categories_that_have_no_names_count_from_0(cfg_of, architecture):
    [record, *_] = DatasetCatalog.get("synthetic_people_tiny")
    record = copy.deepcopy(record)
    record["annotations"][0]["category_id"] = 1
    name = "people_of_class_1"
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).keypoint_names = list(COCO_SKELETON.keypoints)
    cfg = cfg_of(name, MODEL__META_ARCHITECTURE=architecture, MODEL__ROI_HEADS__NUM_CLASSES=1)
    try:
        with pytest.raises(ValueError, match=r"category_id 1, but MODEL\..*_CLASSES is 1: count"):
            QueryPoseTrainer.build_train_loader(cfg)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_fewer_categories_than_classes(label_content, register_labels, cfg_of, start, split):
    one = register_labels(label_content())
    two = register_labels(with_dogs(label_content(), dog_id=2, annotated=True))
    names = (one, two) if split == "TRAIN" else (two, one)
    with pytest.raises(ValueError, match=rf"'{one}' in DATASETS.{split} .*NUM_CLASSES is 2"):
        start(cfg_of(*names, **CLASSES))


def test_classes_in_another_order(label_content, register_labels, cfg_of, start):
    first = register_labels(with_dogs(label_content(), dog_id=2, annotated=True))
    other = register_labels(with_dogs(label_content(), dog_id=0, annotated=True))
    start(cfg_of(first, first, **CLASSES))
    with pytest.raises(ValueError, match=r"\['dog', 'person'\], where the model learns \['person"):
        start(cfg_of(first, other, **CLASSES))


def test_one_class_of_another_name_fits(label_content, register_labels, cfg_of, start):
    content = label_content()
    train = register_labels(content)
    content["categories"][0] |= {"name": "human", "id": 7}
    for person in content["annotations"]:
        person["category_id"] = 7
    start(cfg_of(train, register_labels(content)))


@pytest.mark.parametrize("annotated", [[], "unlabeled"])
def test_nothing_to_train_on(label_content, register_labels, cfg_of, start, annotated):
    content = label_content()
    if annotated:
        for person in content["annotations"]:
            person["keypoints"] = None
    else:
        content["annotations"] = []
    name = register_labels(content)
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN has no image to train on"):
        start(cfg_of(name))


def test_an_evaluation_alone_is_checked_too(
    repository, label_content, register_labels, monkeypatch, tmp_path
):
    """Before the weights are read, which are none; the training labels need not be there."""
    weights = tmp_path / "none.pth"
    weights.touch()
    train = register_labels(label_content())
    train_file = MetadataCatalog.get(train).json_file
    test = register_labels(label_content(NAMES[::-1]))
    (tmp_path / "people_0.json").rename(tmp_path / "elsewhere.json")
    assert train_file.endswith("people_0.json")
    monkeypatch.chdir(repository)
    options = ("DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)")
    options += ("MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(tmp_path / "output"))
    command = ["train_net.py", "--config-file", "configs/quick/tiny.yaml", "--eval-only", *options]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match=r"train_net.py: .* does not have the model's keypoints"):
        runpy.run_path("train_net.py", run_name="__main__")


FIVE = Skeleton(tuple(NAMES))


@pytest.mark.parametrize("field", ["width", "image_id"])
def test_a_record_to_test_on_without_a_field(
    label_content, records_of, register_labels, register_records, cfg_of, start, field
):
    records = records_of(label_content())
    del records[1][field]
    name = register_records(records, FIVE, thing_classes=["person"])
    with pytest.raises(ValueError, match=rf"^{name}: record 1 \(.*2\.png\) lacks {field}; add"):
        start(cfg_of(register_labels(label_content()), name))


def test_a_set_without_names_of_classes_is_evaluated(
    label_content, records_of, register_labels, register_records, cfg_of, start
):
    unnamed = register_records(records_of(label_content()), FIVE)
    train = register_labels(label_content())
    cfg = cfg_of(train, unnamed)
    results = QueryPoseTrainer.test(cfg, start(cfg).model)
    assert results["keypoints"]["AP"] >= 0
    with pytest.raises(ValueError, match=rf"'{unnamed}' .* names no classes, .* is 0, but .* is 2"):
        check_datasets(cfg_of(unnamed, unnamed, **CLASSES))


def test_a_set_that_detectron2_registered_needs_no_annotation_ids(
    label_content, write_labels, temporary_datasets, tmp_path, register_labels, cfg_of, start
):
    content = label_content()
    for person in content["annotations"]:
        del person["id"]
    name = f"without_ids_{tmp_path.name}"
    temporary_datasets.append(name)
    json_file = str(write_labels(content, "without_ids.json"))
    register_coco_instances(name, FIVE.metadata(), json_file, str(tmp_path))
    cfg = cfg_of(register_labels(label_content()), name)
    assert QueryPoseTrainer.test(cfg, start(cfg).model)["keypoints"]["AP"] >= 0


def test_test_images_are_looked_for_before_the_training(
    label_content, records_of, register_labels, register_records, cfg_of, start
):
    train = register_labels(label_content())
    records = records_of(label_content())
    records[0]["file_name"] = "nowhere/1.png"
    of_records = register_records(records, FIVE, thing_classes=["person"])
    of_file = register_labels(label_content())
    MetadataCatalog.get(of_file).__dict__["image_root"] = "nowhere"
    for name in (of_records, of_file):
        with pytest.raises(FileNotFoundError) as missing:
            start(cfg_of(train, name))
        sentence = f"There is no image nowhere/1.png. It is the first image of '{name}' in DATASETS"
        assert str(missing.value).startswith(sentence)


def test_a_detector_has_the_keypoints_of_its_datasets(label_content, register_labels, cfg_of):
    name = register_labels(label_content())
    opts = {"MODEL__META_ARCHITECTURE": "GeneralizedRCNN", "MODEL__ROI_HEADS__NUM_CLASSES": 1}
    with pytest.raises(ValueError, match=r"have 5 keypoints, but .*NUM_KEYPOINTS is 17; make"):
        check_datasets(cfg_of(name, name, **opts))
    check_datasets(cfg_of(name, name, **opts, MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS=5))


@pytest.mark.parametrize(
    ("trained", "fits"),
    [(("horse", "foal"), True), ((), True), (("foal", "horse"), False), (("cat", "dog"), False)],
)
def test_weights_know_their_classes(
    label_content, register_labels, cfg_of, tmp_path, trained, fits
):
    content = label_content()
    content["categories"][0]["name"] = "horse"
    content["categories"].append(content["categories"][0] | {"id": 2, "name": "foal"})
    name = register_labels(content)
    cfg = cfg_of(name, name, MODEL__QUERYPOSE__NUM_CLASSES=2)
    check_datasets(cfg)
    weights = str(tmp_path / "model.pth")
    description = ModelDescription("{}", None, (), trained)
    torch.save({"model": {}, **description.fields()}, weights)
    if fits:
        check_trained_classes(cfg, weights)
        return
    with pytest.raises(ValueError, match=r"\['horse', 'foal'\], but .* was trained on"):
        check_trained_classes(cfg, weights)
