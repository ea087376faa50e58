"""Looks for what is wrong with a dataset: ``python -m querypose.tools.check_dataset NAME``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from tqdm import tqdm

from querypose.data.picture import read_picture
from querypose.skeleton import Skeleton
from querypose.tools.dataset_arguments import (
    add_dataset_arguments,
    register_datasets,
    registered_metadata,
)

# Annotated numbers are rounded: this many pixels beyond the border are no mistake.
_MARGIN = 2.0
_MIN_SIDE = 2
_VISIBILITIES = (0, 1, 2)


class _Picture(NamedTuple):
    file_name: str
    size: tuple[Any, Any]
    people: list[dict[str, Any]]


def find_problems(name: str, *, show_progress: bool = False) -> dict[str, list[str]]:
    """Reads all annotations and all pictures of a registered dataset.

    Args:
        name: of the dataset.
        show_progress: draw a bar on stderr.

    Returns:
        What is wrong, sentence by sentence, by file; sound files are left out.

    Raises:
        ValueError: no dataset is registered under this name.
    """
    metadata = registered_metadata(name)
    num_keypoints = Skeleton.from_metadata(metadata).num_keypoints
    problems: dict[str, list[str]] = defaultdict(list)
    if metadata.get("json_file"):
        content, faults = _read_json(metadata.json_file)
        problems[metadata.json_file] += faults
        pictures = _from_coco(content, metadata.image_root)
    else:
        pictures = [_from_record(record) for record in DatasetCatalog.get(name)]

    def check(picture: _Picture) -> list[str]:
        return [*_picture_problems(picture), *_people_problems(picture, num_keypoints)]

    with ThreadPoolExecutor() as pool:
        checked = tqdm(
            pool.map(check, pictures), name, len(pictures), disable=not show_progress, unit="file"
        )
        for picture, faults in zip(pictures, checked, strict=True):
            problems[picture.file_name] += faults
    return {file_name: faults for file_name, faults in problems.items() if faults}


def _read_json(json_file: str) -> tuple[dict[str, Any], list[str]]:
    """COCO's tables, and what is wrong with the file as a whole."""
    content: Any = {}
    faults: list[str] = []
    try:
        with PathManager.open(json_file) as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"cannot be read: {error}")
    tables: dict[str, Any] = {}
    for key in ("images", "annotations", "categories"):
        table = content.get(key) if isinstance(content, dict) else None
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            if not faults:
                faults.append(f"has no list of objects {key!r}")
            table = []
        tables[key] = table
        counts = Counter(str(row.get("id")) for row in table)
        faults += [f"has {n} {key} with the id {id_}" for id_, n in counts.items() if n > 1]
    names = Counter(str(image.get("file_name")) for image in tables["images"])
    faults += [f"lists {name} {n} times" for name, n in names.items() if n > 1]
    faults += _dangling(tables)
    return tables, faults


def _dangling(tables: dict[str, Any]) -> Iterator[str]:
    """Annotations of pictures or categories that do not exist."""
    known = {key: {str(row.get("id")) for row in tables[key]} for key in ("images", "categories")}
    for person in tables["annotations"]:
        for key, table in (("image_id", "images"), ("category_id", "categories")):
            if str(person.get(key)) not in known[table]:
                yield f"annotation {person.get('id')} has the unknown {key} {person.get(key)}"


def _from_coco(content: dict[str, Any], image_root: str) -> list[_Picture]:
    people: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for person in content["annotations"]:
        people[str(person.get("image_id"))].append(person)
    return [
        _Picture(
            str(Path(image_root, str(image.get("file_name")))),
            (image.get("width"), image.get("height")),
            people[str(image.get("id"))],
        )
        for image in content["images"]
    ]


def _from_record(record: dict[str, Any]) -> _Picture:
    """Detectron2's dicts: keypoints lie half a pixel further than in COCO's files."""
    people = [
        person
        | {"bbox": BoxMode.convert(list(person["bbox"]), person["bbox_mode"], BoxMode.XYWH_ABS)}
        for person in record.get("annotations", [])
    ]
    return _Picture(record["file_name"], (record.get("width"), record.get("height")), people)


def _picture_problems(picture: _Picture) -> Iterator[str]:
    try:
        height, width = read_picture(picture.file_name, "RGB").shape[:2]
    except (OSError, ValueError) as error:
        yield f"cannot be used: {error}"
        return
    if picture.size != (width, height):
        expected = " x ".join(map(str, picture.size))
        yield f"is {width} x {height} pixels, but annotated as {expected}"
    if min(width, height) < _MIN_SIDE:
        yield f"is {width} x {height} pixels, too small to show anybody"


def _people_problems(picture: _Picture, num_keypoints: int) -> Iterator[str]:
    size = _finite_numbers(picture.size, 2) or (math.inf, math.inf)
    for index, person in enumerate(picture.people):
        label = f"annotation {person.get('id', f'number {index}')}"
        if person.get("iscrowd", 0):
            continue
        for fault in (*_box_faults(person, size), *_keypoint_faults(person, size, num_keypoints)):
            yield f"{label} {fault}"


def _box_faults(person: dict[str, Any], size: Sequence[float]) -> Iterator[str]:
    box = _finite_numbers(person.get("bbox"), 4)
    if box is None:
        yield f"has the box {person.get('bbox')}, not four finite numbers"
    elif min(box[2:]) <= 0:
        yield f"has the box {box} without an area"
    elif not all(
        start >= -_MARGIN and start + length <= limit + _MARGIN
        for start, length, limit in zip(box[:2], box[2:], size, strict=True)
    ):
        yield f"has the box {box}, which leaves the picture"
    area = person.get("area", 1)
    if _finite_numbers([area], 1) is None or area <= 0:
        yield f"has the area {area}"


def _keypoint_faults(
    person: dict[str, Any], size: Sequence[float], num_keypoints: int
) -> Iterator[str]:
    given = person.get("keypoints") or []
    numbers = _finite_numbers(given, 3 * num_keypoints if given else 0)
    if numbers is None:
        count = len(given) if isinstance(given, Sequence) else given
        yield f"has the keypoints {count}, not 3 x {num_keypoints} finite numbers"
        return
    points = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    labelled = [(index, x, y) for index, (x, y, flag) in enumerate(points) if flag > 0]
    for flag in sorted({flag for *_, flag in points} - {*_VISIBILITIES}):
        yield f"has a keypoint of the visibility {flag:g}, not 0, 1 or 2"
    for index, x, y in labelled:
        inside = all(
            -_MARGIN <= v <= limit + _MARGIN for v, limit in zip((x, y), size, strict=True)
        )
        if not inside:
            yield f"has keypoint {index} at ({x:g}, {y:g}), outside the picture"
    claimed = person.get("num_keypoints", len(labelled))
    # Evaluations go by it. CrowdPose does not count head and neck, so a lower number is no fault.
    if claimed and not labelled:
        yield f"claims {claimed} keypoints, but none is labelled"


def _finite_numbers(values: Any, count: int) -> list[float] | None:
    """``values``, if they are that many finite numbers."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        return None
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        return None
    return list(values)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the problems of datasets, one a line; 1 where there are any, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.check_dataset",
        description="Read all annotations and pictures of datasets, and say what is wrong.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="as in DATASETS.TRAIN")
    add_dataset_arguments(parser)
    arguments = parser.parse_args(argv)
    num_problems = 0
    try:
        register_datasets(arguments)
        for name in arguments.names:
            problems = find_problems(name, show_progress=True)
            for file_name, faults in problems.items():
                print(*(f"{file_name}: {fault}" for fault in faults), sep="\n")
            count = sum(map(len, problems.values()))
            print(f"{name}: problems: {count}, files with problems: {len(problems)}")
            num_problems += count
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"check_dataset: {error}")
    return int(num_problems > 0)


if __name__ == "__main__":
    sys.exit(main())
