"""Finds mistakes in a dataset: ``querypose-check NAME``."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tqdm import tqdm

from querypose.data.datasets.labels import Labels, examine_registered_labels
from querypose.data.ignore_mask import is_unlabeled, wrong_size
from querypose.data.image import read_image
from querypose.printing import print_text
from querypose.tools.dataset_arguments import (
    add_dataset_arguments,
    register_datasets,
    registered_metadata,
)

# In pixels: annotations are rounded, so they may be slightly outside the image.
_MARGIN = 2.0
_MIN_SIDE = 2
_VISIBILITIES = (0, 1, 2)


class _Image(NamedTuple):
    file_name: str
    size: tuple[int, int]
    people: dict[str, dict[str, Any]]


def find_problems(name: str, *, show_progress: bool = False) -> dict[str, list[str]]:
    """Reads all annotations and all images of a registered dataset.

    Problems include whatever a training would refuse; values that it would derive are logged.

    Args:
        name: of the dataset.
        show_progress: draw a progress bar on stderr.

    Returns:
        A list of sentences for each file with problems.

    Raises:
        ValueError: no dataset is registered under this name.
    """
    metadata = registered_metadata(name)
    try:
        labels = examine_registered_labels(name)
    except (OSError, ValueError) as error:
        return {metadata.get("json_file") or name: [str(error)]}
    labels.log_remarks()
    problems: dict[str, list[str]] = defaultdict(list)
    problems[labels.json_file] += labels.refusals
    counts = Counter(image["file_name"] for image in labels.content["images"])
    problems[labels.json_file] += [f"lists {file} {n} times" for file, n in counts.items() if n > 1]
    # Records have whole paths, label files those in the folder.
    folder = metadata.get("image_root", "") if metadata.get("json_file") else ""
    images = _images(labels, folder)

    def check(image: _Image) -> list[str]:
        return [*_image_problems(image), *_people_problems(image)]

    with ThreadPoolExecutor() as pool:
        checked = tqdm(
            pool.map(check, images), name, len(images), disable=not show_progress, unit="file"
        )
        for image, faults in zip(images, checked, strict=True):
            problems[image.file_name] += faults
    return {file_name: faults for file_name, faults in problems.items() if faults}


def _images(labels: Labels, image_root: str) -> list[_Image]:
    people: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for person in labels.content["annotations"]:
        people[person["image_id"]][labels.annotation_names[person["id"]]] = person
    return [
        _Image(
            os.path.join(image_root, image["file_name"]),
            (image["width"], image["height"]),
            people[image["id"]],
        )
        for image in labels.content["images"]
    ]


def _image_problems(image: _Image) -> Iterator[str]:
    try:
        height, width = read_image(image.file_name, "RGB").shape[:2]
    except (OSError, ValueError) as error:
        yield f"cannot be used: {error}"
        return
    if image.size != (width, height):
        expected = " x ".join(map(str, image.size))
        yield f"is {width} x {height} pixels, but annotated as {expected}"
    if min(width, height) < _MIN_SIDE:
        yield f"is {width} x {height} pixels, too small to show a person"


def _people_problems(image: _Image) -> Iterator[str]:
    """Values that most trainings accept, but that are probably mistakes."""
    for name, person in image.people.items():
        yield from (f"{name} {fault}" for fault in _region_faults(person, image.size))
        if person["iscrowd"]:
            continue
        yield from (f"{name} {fault}" for fault in _box_faults(person["bbox"], image.size))
        yield from (
            f"{name} {fault}" for fault in _keypoint_faults(person["keypoints"], image.size)
        )


def _region_faults(person: dict[str, Any], size: tuple[int, int]) -> Iterator[str]:
    """What a dense method would refuse: it ignores the regions of people without labels."""
    width, height = size
    fault = wrong_size(person.get("segmentation"), (height, width))
    if fault and is_unlabeled(person):
        yield f"has {fault}"


def _box_faults(box: Sequence[float], size: Sequence[float]) -> Iterator[str]:
    if min(box[2:]) <= 0:
        yield f"has the box {box} without an area"
    elif not all(
        start >= -_MARGIN and start + length <= limit + _MARGIN
        for start, length, limit in zip(box[:2], box[2:], size, strict=True)
    ):
        yield f"has the box {box}, which leaves the image"


def _keypoint_faults(numbers: Sequence[float], size: Sequence[float]) -> Iterator[str]:
    points = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    for flag in sorted({flag for *_, flag in points} - {*_VISIBILITIES}):
        yield f"has a keypoint of the visibility {flag:g}, not 0, 1 or 2"
    for index, (x, y, flag) in enumerate(points):
        inside = all(
            -_MARGIN <= v <= limit + _MARGIN for v, limit in zip((x, y), size, strict=True)
        )
        if flag > 0 and not inside:
            yield f"has keypoint {index} at ({x:g}, {y:g}), outside the image"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the problems of datasets, one per line; returns 1 if there are any, else 0."""
    parser = argparse.ArgumentParser(
        prog="querypose-check",
        description="Read all annotations and images of datasets and print their problems.",
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
                for fault in faults:
                    print_text(f"{file_name}: {fault}")
            count = sum(map(len, problems.values()))
            print_text(f"{name}: problems: {count}, files with problems: {len(problems)}")
            num_problems += count
    except (OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")
    return int(num_problems > 0)


if __name__ == "__main__":
    sys.exit(main())
