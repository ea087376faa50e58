"""Files of predicted people in COCO's results format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO

_FIELDS = {"image_id", "category_id", "keypoints", "score"}


def read_results(
    results_file: str | Path, ground_truth: COCO, annotation_file: str | Path, num_keypoints: int
) -> list[dict[str, Any]]:
    """Reads results and checks them against the annotations that they will be compared with.

    Args:
        results_file: a JSON list of ``image_id``, ``category_id``, ``keypoints`` (x, y, any number;
            K times; x and y are pixel indices) and ``score``.
        ground_truth: the annotations.
        annotation_file: whose they are.
        num_keypoints: K.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a list, or a result does not fit the annotations.
    """
    with PathManager.open(str(results_file)) as file:
        try:
            results = json.load(file)
        except ValueError as error:
            raise ValueError(f"{results_file} is not valid JSON: {error}") from error
    _check_results(results, results_file, 3 * num_keypoints)
    check_image_ids([result["image_id"] for result in results], ground_truth, annotation_file)
    return results


def check_image_ids(
    image_ids: Iterable[int], ground_truth: COCO, annotation_file: str | Path
) -> None:
    """Looks whether results are of pictures that the annotations know.

    Raises:
        ValueError: some are not.
    """
    unknown = sorted(set(image_ids) - set(ground_truth.imgs), key=str)
    if unknown:
        raise ValueError(
            f"The results are of images that {annotation_file} does not have, {unknown[0]} among "
            "them; evaluate them on the split they were predicted for."
        )


def _check_results(results: Any, results_file: str | Path, numbers: int) -> None:
    if not isinstance(results, list):
        raise ValueError(f"{results_file} is not a JSON list of results.")
    for index, result in enumerate(results):
        missing = _FIELDS - set(result if isinstance(result, dict) else ())
        if missing:
            raise ValueError(f"{results_file}: result {index} lacks {sorted(missing)}.")
        if len(result["keypoints"]) != numbers:
            raise ValueError(
                f"{results_file}: result {index} has {len(result['keypoints'])} keypoint numbers, "
                f"not {numbers}."
            )
