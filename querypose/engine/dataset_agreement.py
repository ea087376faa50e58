"""Checks that a config's datasets fit its model and each other, before training or evaluation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, RetinaNet

from querypose.checkpoint.description import read_description
from querypose.data.datasets.coco import set_classes
from querypose.data.datasets.labels import Labels
from querypose.data.datasets.records import load_records
from querypose.data.image import read_image
from querypose.evaluation.build import evaluator_class
from querypose.evaluation.coco import oks_sigmas
from querypose.modeling.pose_model import PoseModel, skeleton_from_config
from querypose.skeleton import Skeleton


def check_datasets(cfg: CfgNode) -> None:
    """Finds mismatches that would end a training late or make its results silently wrong.

    Labels and models identify keypoints and classes by position only. So every training and test
    set must have the model's keypoints and classes, in number, names and order. A dataset may have
    more categories than the model if no annotation uses them. Classes are not compared with an
    architecture that does not tell their number.

    The labels of test sets are read, from files or records, and their first images. The label files
    of training sets may be missing, since an evaluation does not need them.

    Raises:
        FileNotFoundError: the label file or the first image of a test set does not exist.
        ValueError: a dataset does not fit the model, or labels contradict themselves.
    """
    _check_keypoints(cfg)
    for name in cfg.DATASETS.TEST:
        metadata, evaluator = MetadataCatalog.get(name), evaluator_class(name)
        oks_sigmas(metadata, cfg.TEST.KEYPOINT_OKS_SIGMAS)
        labels = evaluator.read_labels(name)
        if metadata.get("json_file"):
            set_classes(name, labels)
        if not metadata.get("thing_classes"):
            _check_number_of_classes(cfg, name, labels)
        if labels.content["images"]:
            _check_first_image(name, labels)
    _check_classes(cfg)


def check_unnamed_classes(cfg: CfgNode, records: Sequence[dict[str, Any]]) -> None:
    """Finds annotations of a class that the model does not have, if datasets name no classes.

    Detectron2's detectors would learn such persons as background.

    Args:
        cfg: of the training.
        records: of ``DATASETS.TRAIN``.

    Raises:
        ValueError: there is such an annotation.
    """
    if all(MetadataCatalog.get(name).get("thing_classes") for name in cfg.DATASETS.TRAIN):
        return
    classes = _classes_of_model(cfg)
    if classes is None:
        return
    for record in records:
        for annotation in _persons(record):
            if annotation["category_id"] >= classes.number:
                raise ValueError(
                    f"{record['file_name']} has an annotation of category_id "
                    f"{annotation['category_id']}, but {classes.name} is {classes.number}: count "
                    "categories from 0."
                )


def check_trained_classes(cfg: CfgNode, weights: str) -> None:
    """Checks that test sets have the classes that weights were trained on, in their order.

    Args:
        cfg: of the evaluation.
        weights: address of a checkpoint, which may tell the names of its classes.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be downloaded.
        ValueError: a test set has others, or another order.
    """
    classes = _classes_of_model(cfg)
    # A single class cannot be mixed up, whatever its name.
    if classes is None or classes.number == 1:
        return
    description = read_description(weights, weights_only=cfg.MODEL.WEIGHTS_ONLY)
    if description is None or not description.class_names:
        return
    expected = list(description.class_names[: classes.number])
    for name in cfg.DATASETS.TEST:
        found = list(MetadataCatalog.get(name).get("thing_classes") or expected)
        if found[: classes.number] != expected:
            raise ValueError(
                f"{name!r} in DATASETS.TEST has the categories {found}, but {weights} "
                f"was trained on {expected}, in this order; renumber its categories."
            )


def check_flips(cfg: CfgNode) -> None:
    """Checks that mirrored training images exchange the keypoints that the model exchanges.

    Raises:
        ValueError: a training set exchanges others.
    """
    if cfg.INPUT.RANDOM_FLIP == "none":
        return
    expected = skeleton_from_config(cfg)
    for name in cfg.DATASETS.TRAIN:
        found = Skeleton.from_metadata(MetadataCatalog.get(name))
        if found.keypoints == expected.keypoints and found.flip_indices != expected.flip_indices:
            raise ValueError(
                f"{name!r} in DATASETS.TRAIN and the model exchange different keypoints in mirror "
                "images: declare the same flips in the skeletons of both, see MODEL.SKELETON and "
                "the fourth entry of DATASETS.REGISTER."
            )


# Where Detectron2's architectures have their number of classes.
_DETECTORS = {
    GeneralizedRCNN: "MODEL.ROI_HEADS.NUM_CLASSES",
    RetinaNet: "MODEL.RETINANET.NUM_CLASSES",
}


class _Classes(NamedTuple):
    """How many classes a model has, and what to call that number."""

    number: int
    name: str


def _classes_of_model(cfg: CfgNode) -> _Classes | None:
    """The number of classes, or None if the architecture does not tell it."""
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    bases = _bases(architecture)
    keys = [_DETECTORS[base] for base in bases if base in _DETECTORS]
    key = keys[0] if keys else getattr(architecture, "num_classes_key", None)
    if key is not None:
        return _Classes(attrgetter(key)(cfg), key)
    if PoseModel in bases:
        return _Classes(1, f"the number of classes of {architecture.__name__}")
    return None


def _bases(architecture: Any) -> tuple[type, ...]:
    """The classes that an architecture inherits from; none if a function builds it."""
    return architecture.__mro__ if isinstance(architecture, type) else ()


def _check_keypoints(cfg: CfgNode) -> None:
    expected = skeleton_from_config(cfg).keypoints
    head = cfg.MODEL.ROI_KEYPOINT_HEAD
    bases = _bases(META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE))
    has_head = GeneralizedRCNN in bases and cfg.MODEL.KEYPOINT_ON
    if has_head and len(expected) != head.NUM_KEYPOINTS:
        raise ValueError(
            f"The datasets have {len(expected)} keypoints, but "
            f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {head.NUM_KEYPOINTS}; make both the same."
        )
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            found = Skeleton.from_metadata(MetadataCatalog.get(name)).keypoints
            if found != expected:
                raise ValueError(
                    f"{name!r} in DATASETS.{key} does not have the model's keypoints: "
                    f"{_difference(found, expected)}; bring its label file into the model's order, "
                    "or leave it out."
                )


def _check_number_of_classes(cfg: CfgNode, name: str, labels: Labels) -> None:
    """Checks a test set that names no classes: predictions are matched by their number alone."""
    classes, number = _classes_of_model(cfg), len(labels.category_ids)
    if classes is not None and number != classes.number:
        raise ValueError(
            f"{name!r} in DATASETS.TEST names no classes, and the highest category_id of its "
            f"annotations is {number - 1}, but {classes.name} is {classes.number}; set "
            "thing_classes in its metadata."
        )


def _check_first_image(name: str, labels: Labels) -> None:
    """Reads one image: if the folder is wrong, no other image can be read either."""
    try:
        read_image(_first_image(name, labels), "RGB")
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(
            f"{error} It is the first image of {name!r} in DATASETS.TEST: correct the file or its "
            f"folder. What else is wrong with the dataset: querypose-check {name}."
        ) from error


def _first_image(name: str, labels: Labels) -> str:
    metadata = MetadataCatalog.get(name)
    if not metadata.get("json_file"):
        return labels.content["images"][0]["file_name"]
    if not metadata.get("image_root"):
        return load_records(name)[0]["file_name"]
    return os.path.join(metadata.image_root, labels.content["images"][0]["file_name"])


def _check_classes(cfg: CfgNode) -> None:
    classes_of_model = _classes_of_model(cfg)
    if classes_of_model is None:
        return
    num_classes, number_name = classes_of_model
    if num_classes > 1:
        _read_classes(cfg.DATASETS.TRAIN)
    learned: Sequence[str] = ()
    for split in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[split]:
            classes = MetadataCatalog.get(name).get("thing_classes")
            if not classes:
                continue
            learned = learned or classes[:num_classes]
            if len(classes) < num_classes or _has_annotations_above(name, num_classes):
                raise ValueError(
                    f"{name!r} in DATASETS.{split} has the categories {list(classes)}, but "
                    f"{number_name} is {num_classes}; make both the same."
                )
            # A single class cannot be mixed up, whatever its name.
            if num_classes > 1 and list(classes[:num_classes]) != list(learned):
                raise ValueError(
                    f"{name!r} in DATASETS.{split} has the categories {list(classes)}, where the "
                    f"model learns {list(learned)}, in this order; renumber its categories."
                )


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    if len(found) != len(expected):
        return f"it has {len(found)} keypoints, not {len(expected)}"
    index = next(
        i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]
    )
    what = "their order is another" if sorted(found) == sorted(expected) else "their names differ"
    return f"{what}, in position {index} is {found[index]!r}, not {expected[index]!r}"


def _read_classes(datasets: Sequence[str]) -> None:
    """Adds classes to the metadata of datasets whose label files were not read yet."""
    for name in datasets:
        if not MetadataCatalog.get(name).get("thing_classes"):
            with contextlib.suppress(FileNotFoundError):
                load_records(name)


def _has_annotations_above(name: str, num_classes: int) -> bool:
    if len(MetadataCatalog.get(name).thing_classes) <= num_classes:
        return False
    return any(
        annotation["category_id"] >= num_classes
        for record in load_records(name)
        for annotation in _persons(record)
    )


def _persons(record: dict[str, Any]) -> list[dict[str, Any]]:
    annotations = record.get("annotations", ())
    return [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
