"""Reads files of predictions in COCO's results format."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from pycocotools.cocoeval import COCOeval

from querypose.data.datasets.labels import Labels, are_numbers, is_id, is_number
from querypose.evaluation.ground_truth import count_matches, warn_of_no_annotations

_FIELDS = ("image_id", "category_id", "keypoints", "score")
# Its size decides whether a person counts as a medium or a large one, as in Detectron2's evaluator.
# pycocotools looks for it in the first result alone. By a negative area, a person would be of no
# size that it counts, and so wrong nowhere.
_BOX = "bbox"


def read_results(
    results_file: str | Path, labels: Labels, num_keypoints: int
) -> list[dict[str, Any]]:
    """Reads results and checks them against the ground truth.

    Args:
        results_file: a JSON list of objects with ``image_id``, ``category_id``, ``score`` and
            ``keypoints``: 3K numbers, per keypoint x and y, as pixel indices, and any number.
        labels: the ground truth.
        num_keypoints: K.

    Returns:
        The results with these fields only, and with ``bbox`` if all have x, y, width and height
        there, none of the last two is negative, and not all boxes are empty.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not such a list, or a result does not fit the labels.
    """
    with PathManager.open(str(results_file)) as file:
        try:
            results = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{results_file} is not valid JSON: {error}") from error
    if not isinstance(results, list):
        raise ValueError(f"{results_file} is not a JSON list of results.")
    for index, result in enumerate(results):
        fault = _fault(result, labels, num_keypoints)
        if fault:
            raise ValueError(f"{results_file}: result {index} {fault}.")
    check_image_ids([result["image_id"] for result in results], labels)
    fields = (*_FIELDS, _BOX) if _have_boxes(results, results_file) else _FIELDS
    return [{field: result[field] for field in fields} for result in results]


def _have_boxes(results: Sequence[Mapping[str, Any]], results_file: str | Path) -> bool:
    """Whether all results have boxes that count; logs a warning if some of their boxes do not."""
    boxes = [result.get(_BOX) for result in results]
    given = [box for box in boxes if box is not None]
    sound = [box for box in given if are_numbers(box, 4) and min(box[2:]) >= 0]
    only_empty = bool(sound) and not any(min(box[2:]) > 0 for box in sound)
    if len(sound) < len(given) or only_empty:
        logging.getLogger(__name__).warning(
            "%s: %s of %d boxes are not x, y, width and height; so sizes of persons are those of "
            "their keypoints.",
            results_file,
            "all" if only_empty else len(given) - len(sound),
            len(given),
        )
    return len(sound) == len(results) and not only_empty


def match_results(
    results_file: str | Path, labels: Labels, sigmas: Sequence[float]
) -> COCOeval | None:
    """Matches a file of results with labeled persons, as COCO's keypoint evaluation does.

    Args:
        results_file: see :func:`read_results`.
        labels: the ground truth.
        sigmas: OKS standard deviations of the keypoints.

    Returns:
        The evaluation with its summary, or None if there are no results or no annotations.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it holds no such list, or a result does not fit the labels.
    """
    results = read_results(results_file, labels, len(sigmas))
    if not labels.content["annotations"]:
        warn_of_no_annotations(labels)
        return None
    return count_matches(labels, results, sigmas) if results else None


def check_image_ids(image_ids: Iterable[int | str], labels: Labels) -> None:
    """Checks that all images of results are in the label file.

    Raises:
        ValueError: an image is not.
    """
    unknown = sorted(set(image_ids) - labels.image_ids.keys(), key=str)
    if unknown:
        raise ValueError(
            f"The results are of images that {labels.json_file} does not have, {unknown[0]!r} "
            "among them; evaluate them on the split they were predicted for."
        )


def _fault(result: Any, labels: Labels, num_keypoints: int) -> str:
    """What is wrong with a result, as the end of a sentence; empty if it is valid."""
    missing = set(_FIELDS) - set(result if isinstance(result, dict) else ())
    if missing:
        return f"lacks {sorted(missing)}"
    if not is_id(result["image_id"]):
        return f"is of image {result['image_id']!r:.50}; write an id of {labels.json_file}"
    category_id = result["category_id"]
    if not is_id(category_id) or category_id not in labels.category_ids:
        return (
            f"has category {category_id!r:.50}, but the categories of {labels.json_file} are "
            f"{list(labels.category_ids)!r:.100}; write one of these"
        )
    if not is_number(result["score"]):
        return f"has the score {result['score']!r:.50}, which is no finite number"
    keypoints, numbers = result["keypoints"], 3 * num_keypoints
    if not isinstance(keypoints, list):
        return f"has the keypoints {keypoints!r:.50}, not a list of numbers"
    if len(keypoints) != numbers:
        return f"has {len(keypoints)} keypoint numbers, not {numbers}"
    if not are_numbers(keypoints, numbers):
        wrong = next(value for value in keypoints if not is_number(value))
        return f"has {wrong!r:.50} among its keypoints, which is no finite number"
    return ""
