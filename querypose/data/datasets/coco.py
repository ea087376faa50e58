"""Keypoint datasets in COCO's JSON format."""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from querypose.data.datasets.labels import (
    Labels,
    ordered_ids,
    read_categories,
    read_labels,
    takes_areas_from_boxes,
)
from querypose.skeleton import Skeleton


def register_coco_keypoints(
    name: str,
    json_file: str | Path,
    image_root: str | Path,
    skeleton: Skeleton | None = None,
    *,
    evaluator_type: str = "coco",
    **metadata: Any,
) -> None:
    """Registers keypoint annotations in COCO's format under ``name``.

    The annotations are read and checked when the dataset is first used. Without a ``skeleton``,
    the file is read at once, for the keypoint names in its category. If these are COCO's or
    CrowdPose's, the skeleton is theirs; otherwise flips follow from ``left`` and ``right`` in the
    names, and every keypoint is a part of its own.

    Args:
        name: the dataset's name in ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        json_file: annotations.
        image_root: the folder that the images' ``file_name`` is relative to.
        skeleton: keypoints, flips, sigmas, edges, parts.
        evaluator_type: "coco" or "crowdpose".
        metadata: further fields of the dataset's metadata.

    Raises:
        FileNotFoundError: ``skeleton`` is None and the file does not exist.
        ValueError: the file is not COCO keypoint JSON, or the name is already registered.
    """
    json_file, image_root = str(json_file), str(image_root)
    if name in DatasetCatalog:
        raise ValueError(f"A dataset named {name!r} is already registered; choose another name.")
    skeleton = skeleton or declared_skeleton(json_file)
    DatasetCatalog.register(
        name, lambda: load_coco_keypoints(json_file, image_root, name, skeleton)
    )
    MetadataCatalog.get(name).set(
        json_file=json_file,
        image_root=image_root,
        evaluator_type=evaluator_type,
        **skeleton.metadata(),
        **metadata,
    )


def register_configured_datasets(cfg: CfgNode) -> None:
    """Registers the datasets that ``DATASETS.REGISTER`` lists, once per process.

    Raises:
        ValueError: an entry is not ``[name, json, folder]`` or ``[name, json, folder, skeleton
            file]``, or another dataset has the name.
    """
    entries = _entries(cfg)
    counts = Counter(name for name, *_ in entries)
    for name, json_file, image_root, *skeleton_file in entries:
        if counts[name] > 1:
            raise ValueError(
                f"DATASETS.REGISTER has {counts[name]} entries named {name!r}; give every dataset "
                "a name of its own."
            )
        skeleton = Skeleton.from_file(skeleton_file[0]) if skeleton_file else None
        if name not in DatasetCatalog:
            register_coco_keypoints(name, json_file, image_root, skeleton)
        elif not _is_registered(name, json_file, image_root, skeleton):
            raise ValueError(
                f"DATASETS.REGISTER gives the name {name!r} to {json_file}, but a dataset with "
                "another file, folder or skeleton has it already; choose another name."
            )


def _entries(cfg: CfgNode) -> list[Sequence[str]]:
    for entry in cfg.DATASETS.REGISTER:
        is_list = isinstance(entry, (list, tuple)) and len(entry) in (3, 4)
        if not is_list or not all(isinstance(item, (str, os.PathLike)) for item in entry):
            raise ValueError(
                "DATASETS.REGISTER lists [name, JSON, image folder] or "
                f"[name, JSON, image folder, skeleton file], got {entry!r}."
            )
    return cfg.DATASETS.REGISTER


def _is_registered(name: str, json_file: str, image_root: str, skeleton: Skeleton | None) -> bool:
    """Whether the same dataset is registered; None stands for any skeleton."""
    metadata = MetadataCatalog.get(name)
    registered = (metadata.get("json_file"), metadata.get("image_root"))
    return list(map(_absolute, registered)) == list(
        map(_absolute, (json_file, image_root))
    ) and skeleton in (None, Skeleton.from_metadata(metadata))


def _absolute(path: Any) -> str:
    return os.path.abspath(str(path))


def check_configured_datasets(cfg: CfgNode) -> None:
    """Checks that ``DATASETS.TRAIN`` and ``DATASETS.TEST`` name registered datasets.

    Raises:
        ValueError: one of them is not registered.
    """
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                close = difflib.get_close_matches(name, DatasetCatalog.list(), n=1)
                meant = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(
                    f"No dataset is registered as {name!r}, which DATASETS.{key} names: add "
                    f"[name, JSON, image folder] to DATASETS.REGISTER.{meant}"
                )


def declared_skeleton(json_file: str) -> Skeleton:
    """The keypoints that the first category of a label file with keypoints declares.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it does not hold COCO's tables, or declares no skeleton.
    """
    with_keypoints = [row for row in read_categories(json_file) if row.get("keypoints")]
    if not with_keypoints:
        raise ValueError(f"{json_file}: no category lists keypoints; pass a skeleton.")
    try:
        return Skeleton.from_coco_json(json_file, with_keypoints[0])
    except TypeError as error:
        raise ValueError(f"{json_file} declares no skeleton: {error}.") from error


def trained_category_ids(cfg: CfgNode) -> tuple[int | str, ...]:
    """The category ids of the first training dataset, in the order of the model's classes.

    They are empty if the label file does not exist.

    Raises:
        ValueError: the label file does not hold COCO's tables.
    """
    files = {name: json_file for name, json_file, *_ in _entries(cfg)}
    for name in cfg.DATASETS.TRAIN[:1]:
        if name in DatasetCatalog:
            classes = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id", {})
            if classes:
                return tuple(sorted(classes, key=classes.get))
        if name in files:
            try:
                return tuple(ordered_ids(read_categories(files[name])))
            except FileNotFoundError:
                return ()
    return ()


def trained_class_names(cfg: CfgNode) -> tuple[str, ...]:
    """The names of the model's classes, of the first training dataset that names them."""
    for name in cfg.DATASETS.TRAIN:
        names = MetadataCatalog.get(name).get("thing_classes") if name in DatasetCatalog else None
        if names:
            return tuple(names)
    return ()


def load_coco_keypoints(
    json_file: str, image_root: str, name: str, skeleton: Skeleton
) -> list[dict[str, Any]]:
    """Reads COCO keypoint annotations into Detectron2's standard dicts.

    As in Detectron2's own loader, keypoints are shifted by half a pixel, from pixel indices to
    continuous coordinates: the center of the first pixel is at (0.5, 0.5). The dicts have the
    file's own image ids, and every annotation has its ``area``. The classes are written to the
    metadata of ``name``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file contradicts itself or the metadata.
    """
    labels = read_labels(json_file, skeleton, areas_from_boxes=takes_areas_from_boxes(name))
    set_classes(name, labels)
    logging.getLogger(__name__).info(
        "Loaded %d images in COCO format from %s", len(labels.image_ids), json_file
    )
    classes = {new_id: index for index, new_id in enumerate(labels.category_ids.values())}
    annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in labels.content["annotations"]:
        annotations[annotation["image_id"]].append(_standard_annotation(annotation, classes))
    images = {image["id"]: image for image in labels.content["images"]}
    return [
        {
            "file_name": os.path.join(image_root, images[new_id]["file_name"]),
            "height": images[new_id]["height"],
            "width": images[new_id]["width"],
            "image_id": image_id,
            "annotations": annotations[new_id],
        }
        for image_id, new_id in labels.image_ids.items()
    ]


def _standard_annotation(annotation: dict[str, Any], classes: Mapping[int, int]) -> dict[str, Any]:
    standard = {key: annotation[key] for key in ("iscrowd", "bbox", "area")}
    standard["bbox_mode"] = BoxMode.XYWH_ABS
    standard["category_id"] = classes[annotation["category_id"]]
    standard["keypoints"] = [
        value if index % 3 == 2 else value + 0.5
        for index, value in enumerate(annotation["keypoints"])
    ]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        segmentation = pycocotools.mask.frPyObjects(segmentation, *segmentation["size"])
    if segmentation:
        standard["segmentation"] = segmentation
    return standard


def set_classes(name: str, labels: Labels) -> None:
    """Writes the categories of a label file to its dataset's metadata.

    Raises:
        ValueError: the metadata already has other categories.
    """
    metadata = MetadataCatalog.get(name)
    names, classes = labels.class_names, labels.classes
    known = list(metadata.get("thing_classes", names))
    if known != names or metadata.get("thing_dataset_id_to_contiguous_id", classes) != classes:
        raise ValueError(
            f"{labels.json_file} has the categories {dict(zip(classes, names, strict=True))}, but "
            f"{name!r} is registered with {known}; register the file under another name."
        )
    metadata.set(thing_dataset_id_to_contiguous_id=classes)
    if not metadata.get("thing_classes"):
        metadata.thing_classes = names
