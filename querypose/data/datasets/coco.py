"""Keypoint datasets in COCO's JSON format."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathManager

from querypose.skeleton import Skeleton

_ID, _NUMBER = (int, str), (int, float)
# What Detectron2's loader and pycocotools take for granted.
_TABLES: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": _ID, "file_name": (str,), "width": _NUMBER, "height": _NUMBER},
    "annotations": {"id": _ID, "image_id": _ID, "category_id": _ID},
    "categories": {"id": _ID, "name": (str,)},
}


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

    The annotations are read, and checked, when the dataset is first used. Without a ``skeleton``
    the file's category is read at once: it names the keypoints, from which flips follow by ``left``
    and ``right``; every keypoint is then a part of its own, unless the names are COCO's or
    CrowdPose's.

    Args:
        name: by which ``DATASETS.TRAIN`` and ``DATASETS.TEST`` know the dataset.
        json_file: annotations.
        image_root: the folder that the pictures' ``file_name`` starts from.
        skeleton: keypoints, flips, sigmas, edges, parts.
        evaluator_type: which evaluator the dataset wants.
        metadata: further fields of the dataset's metadata.

    Raises:
        FileNotFoundError: ``skeleton`` is None and there is no such file.
        ValueError: the file is not COCO keypoint JSON, or the name is taken.
    """
    json_file, image_root = str(json_file), str(image_root)
    if name in DatasetCatalog:
        raise ValueError(f"A dataset named {name!r} is already registered; choose another name.")
    skeleton = skeleton or _declared_skeleton(json_file)
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
    """Registers what ``DATASETS.REGISTER`` lists, once per process.

    Raises:
        ValueError: an entry is not ``[name, json, folder]`` or ``[name, json, folder, skeleton
            file]``.
    """
    for entry in cfg.DATASETS.REGISTER:
        if not isinstance(entry, (list, tuple)) or len(entry) not in (3, 4):
            raise ValueError(
                "DATASETS.REGISTER lists [name, JSON, picture folder] or "
                f"[name, JSON, picture folder, skeleton file], got {entry!r}."
            )
        name, json_file, image_root, *skeleton_file = entry
        if name in DatasetCatalog:
            continue
        skeleton = Skeleton.from_file(skeleton_file[0]) if skeleton_file else None
        register_coco_keypoints(name, json_file, image_root, skeleton)


def check_configured_datasets(cfg: CfgNode) -> None:
    """Looks whether ``DATASETS.TRAIN`` and ``DATASETS.TEST`` name registered datasets.

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
                    f"[name, JSON, picture folder] to DATASETS.REGISTER.{meant}"
                )


def load_coco_keypoints(
    json_file: str, image_root: str, name: str, skeleton: Skeleton
) -> list[dict[str, Any]]:
    """Reads COCO keypoint annotations into Detectron2's standard dicts.

    Keypoints move by half a pixel, as Detectron2's loader does it: from pixel indices to continuous
    coordinates, in which the first pixel's centre is (0.5, 0.5).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an annotation names an unknown category or picture, or its keypoint count is
            wrong.
    """
    _check_annotations(_read_json(json_file), json_file, skeleton)
    try:
        return load_coco_json(json_file, image_root, name)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{json_file} is not in COCO's format: {error!r:.200}.") from error


def _read_json(json_file: str) -> dict[str, Any]:
    if not PathManager.isfile(json_file):
        raise FileNotFoundError(f"There is no annotation file {json_file}.")
    try:
        with PathManager.open(json_file) as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{json_file} is not valid JSON: {error}") from error
    missing = set(_TABLES) - set(content) if isinstance(content, dict) else _TABLES
    if missing:
        raise ValueError(f"{json_file} is not in COCO's format: it lacks {sorted(missing)}.")
    for key, fields in _TABLES.items():
        if not isinstance(content[key], list):
            raise ValueError(f"{json_file} is not in COCO's format: {key!r} is no list.")
        for index, row in enumerate(content[key]):
            problem = _wrong_field(row, fields)
            if problem:
                raise ValueError(f"{json_file}: number {index} of {key!r} {problem}.")
    return content


def _wrong_field(row: Any, fields: dict[str, tuple[type, ...]]) -> str:
    """What is wrong with a table's row, as the end of a sentence; empty where nothing is."""
    if not isinstance(row, dict):
        return f"is {type(row).__name__}, not an object"
    for name, kinds in fields.items():
        if not isinstance(row.get(name), kinds):
            return f"has the {name} {row.get(name)!r:.50}"
    return ""


def _declared_skeleton(json_file: str) -> Skeleton:
    categories = _read_json(json_file)["categories"]
    with_keypoints = [category for category in categories if category.get("keypoints")]
    if not with_keypoints:
        raise ValueError(f"{json_file}: no category lists keypoints; pass a skeleton.")
    try:
        return Skeleton.from_coco_json(json_file, with_keypoints[0])
    except TypeError as error:
        raise ValueError(f"{json_file} declares no skeleton: {error}.") from error


def _check_annotations(content: dict[str, Any], json_file: str, skeleton: Skeleton) -> None:
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    seen: set[Any] = set()
    for annotation in content["annotations"]:
        problem = _problem(annotation, images, categories, skeleton)
        if annotation.get("id") in seen:
            problem = "stands there twice; give every annotation an id of its own"
        seen.add(annotation.get("id"))
        if problem:
            raise ValueError(f"{json_file}: annotation {annotation.get('id')} {problem}.")


def _problem(
    annotation: dict[str, Any], images: set[Any], categories: set[Any], skeleton: Skeleton
) -> str:
    """What is wrong with an annotation, as the end of a sentence; empty where nothing is."""
    if annotation.get("category_id") not in categories:
        return f"has category {annotation.get('category_id')}, which is not in 'categories'"
    if annotation.get("image_id") not in images:
        return f"is of picture {annotation.get('image_id')}, which is not in 'images'"
    if not _is_list_of_numbers(annotation.get("bbox"), 4):
        return f"has the box {annotation.get('bbox')}, not [x, y, width, height]"
    keypoints = annotation.get("keypoints") or []
    numbers = len(keypoints) if isinstance(keypoints, list) else keypoints
    expected = 3 * skeleton.num_keypoints
    if numbers not in (0, expected):
        return f"has {numbers} keypoint numbers, not 3 x {skeleton.num_keypoints} = {expected}"
    if not _is_list_of_numbers(keypoints, numbers):
        return "has keypoints that are no numbers"
    return ""


def _is_list_of_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, _NUMBER) for value in values)
    )
