"""Results files, matched with the labeled persons of their dataset."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from querypose.data.datasets.labels import read_registered_labels
from querypose.evaluation.coco import oks_sigmas
from querypose.evaluation.ground_truth import GroundTruth
from querypose.evaluation.results_file import read_results
from querypose.tools.dataset_arguments import (
    add_dataset_arguments,
    register_datasets,
    registered_metadata,
)

MATCHING_OKS = 0.5
_MAX_PERSONS = 20


class NobodyPredictedError(ValueError):
    """A results file is empty."""


class DatasetResults(NamedTuple):
    """The predictions of a model for a dataset.

    Attributes:
        annotations: of the dataset.
        results: in COCO's format.
        sigmas: OKS standard deviations of the keypoints.
    """

    annotations: GroundTruth
    results: list[dict[str, Any]]
    sigmas: tuple[float, ...]


def add_results_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the dataset, the results file and what registers datasets."""
    parser.add_argument("name", help="the evaluated dataset")
    parser.add_argument(
        "results", type=Path, help="OUTPUT_DIR/inference/NAME/coco_instances_results.json"
    )
    add_dataset_arguments(parser)


def read_named_results(arguments: argparse.Namespace) -> DatasetResults:
    """Registers the datasets of the command line, and reads the results that it names.

    Raises:
        OSError: a file cannot be read.
        ValueError: the config is invalid; see also :func:`read_dataset_results`.
    """
    cfg = register_datasets(arguments)
    sigmas = () if cfg is None else cfg.TEST.KEYPOINT_OKS_SIGMAS
    return read_dataset_results(arguments.name, arguments.results, sigmas)


def read_dataset_results(
    name: str, results_file: Path, sigmas: Sequence[float] = ()
) -> DatasetResults:
    """Reads a results file of an evaluation on a registered dataset.

    Args:
        name: of the dataset.
        results_file: in COCO's format.
        sigmas: OKS standard deviations of the evaluation; empty takes the skeleton's.

    Raises:
        OSError: a file cannot be read.
        NobodyPredictedError: the results are empty.
        ValueError: the dataset has no annotations, there is not one sigma per keypoint, or the
            results do not fit the dataset.
    """
    sigmas = oks_sigmas(registered_metadata(name), sigmas)
    labels = read_registered_labels(name)
    if not labels.content["annotations"]:
        raise ValueError(f"{labels.json_file} has no annotations to match results with.")
    results = read_results(results_file, labels, len(sigmas))
    if not results:
        raise NobodyPredictedError(f"{results_file} is empty: the model predicted nobody.")
    return DatasetResults(GroundTruth(labels), results, tuple(sigmas))


def match_at_half(
    annotations: GroundTruth, results: Sequence[dict[str, Any]], sigmas: Sequence[float]
) -> COCOeval:
    """Matches results with labeled persons as COCO's evaluation does, at an OKS of 0.5.

    Args:
        annotations: of the dataset.
        results: in COCO's format; the best 20 of each image count.
        sigmas: OKS standard deviations of the keypoints.

    Returns:
        The evaluation, after ``evaluate``.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(annotations, annotations.loadRes(list(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.params.iouThrs = np.array([MATCHING_OKS])
        evaluation.params.maxDets = [_MAX_PERSONS]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.evaluate()
    return evaluation


def evaluated_images(evaluation: COCOeval) -> list[dict[str, Any]]:
    """The images that have labeled or predicted persons, as ``evalImgs`` holds them."""
    return [image for image in evaluation.evalImgs if image is not None]


def scores_and_ignored(images: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Of the images' P predicted persons: (P,) scores, and (P,) bool, which do not count."""
    scores = np.concatenate([[], *(image["dtScores"] for image in images)])
    ignored = np.concatenate([[], *(image["dtIgnore"][0] for image in images)])
    return scores, ignored.astype(bool)
