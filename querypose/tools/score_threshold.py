"""Precision and recall from a score on: ``python -m querypose.tools.score_threshold``.

Helps to choose ``DEMO.CONFIDENCE_THRESHOLD`` for a model, from the results file of its evaluation,
and prints its ``DEMO.SCORE_PRECISION``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression
from tabulate import tabulate

from querypose.evaluation.ground_truth import GroundTruth
from querypose.tools.judged_results import (
    add_results_arguments,
    evaluated_images,
    match_at_half,
    read_named_results,
    scores_and_ignored,
)

_STEP = 0.05
# People of neighboring scores whose precision is one point of DEMO.SCORE_PRECISION.
_GROUP_SIZE = 100
# Scores of a lower precision are of no interest to those who look at drawings.
_LOWEST_PRECISION = 0.05


class JudgedPeople(NamedTuple):
    """Predicted people of a whole dataset, without those that COCO's evaluation ignores.

    Attributes:
        scores: (n,) float, descending.
        correct: (n,) bool, whether the person is matched with a labeled one at an OKS of 0.5.
        num_labeled: number of labeled people with keypoints.
    """

    scores: np.ndarray
    correct: np.ndarray
    num_labeled: int

    def at_least(self, threshold: float) -> tuple[int, float, float]:
        """Number of people whom a threshold keeps, their precision (1 of nobody) and recall."""
        kept = self.correct[self.scores >= threshold]
        precision = float(kept.mean()) if len(kept) else 1.0
        return len(kept), precision, float(kept.sum()) / max(self.num_labeled, 1)

    def lowest_threshold(self, precision: float) -> float | None:
        """A threshold that keeps most people of at least this precision; None if none does.

        It is between two scores, with three decimals or as many as tell it from both.
        """
        precisions = self.correct.cumsum() / np.arange(1, len(self.correct) + 1)
        # No threshold is between people of one score.
        separable = np.diff(self.scores, append=-np.inf) < 0
        sufficient = np.flatnonzero(separable & (precisions >= precision))
        if not len(sufficient):
            return None
        last = sufficient[-1]
        if last + 1 == len(self.scores):
            return 0.0
        return _between(float(self.scores[last + 1]), float(self.scores[last]))

    def score_precision(self) -> list[list[float]]:
        """Points for ``DEMO.SCORE_PRECISION``, see :class:`querypose.inference.score_scale`.

        Returns:
            Mean score and precision of groups of 100 people of neighboring scores, both increasing:
            where chance reverses the order of two groups, their precisions are averaged.
        """
        num_groups = len(self.scores) // _GROUP_SIZE
        if not num_groups:
            return []
        kept = slice(num_groups * _GROUP_SIZE)
        scores = self.scores[kept].reshape(num_groups, -1).mean(axis=1)[::-1]
        shares = self.correct[kept].reshape(num_groups, -1).mean(axis=1)[::-1]
        points: list[list[float]] = []
        for score, share in zip(scores, isotonic_regression(shares).x, strict=True):
            point = [round(float(score), 3), round(float(share), 2)]
            previous = points[-1] if points else [0.0, 0.0]
            if share >= _LOWEST_PRECISION and point[0] > previous[0] and point[1] > previous[1]:
                points.append(point)
        return points


def _between(low: float, high: float) -> float:
    """A number above one score and below another, of few decimals."""
    middle = (low + high) / 2
    rounded = (round(middle, decimals) for decimals in range(3, 18))
    # Nothing is between neighboring floats.
    return next((number for number in rounded if low < number < high), high)


def judge_people(
    annotations: GroundTruth, results: Sequence[dict[str, Any]], sigmas: Sequence[float]
) -> JudgedPeople:
    """Matches results with labeled people as COCO's evaluation does, at an OKS of 0.5.

    Args:
        annotations: of the dataset.
        results: in COCO's format; the best 20 of each image count.
        sigmas: OKS standard deviations of the keypoints.
    """
    images = evaluated_images(match_at_half(annotations, results, sigmas))
    scores, ignored = scores_and_ignored(images)
    correct = np.concatenate([[], *(image["dtMatches"][0] for image in images)]).astype(bool)
    num_labeled = sum(int((1 - np.asarray(image["gtIgnore"])).sum()) for image in images)
    order = np.argsort(-scores[~ignored], kind="stable")
    return JudgedPeople(scores[~ignored][order], correct[~ignored][order], num_labeled)


def _why_unmeasured(people: JudgedPeople) -> str:
    if len(people.scores) < _GROUP_SIZE:
        return f"not measured, {len(people.scores)} people are fewer than {_GROUP_SIZE}"
    return f"not measured, of no {_GROUP_SIZE} people in a row enough are right"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints precision and recall by threshold, and the lowest threshold for a precision."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.score_threshold",
        description="Print precision and recall of the people whom each threshold keeps, at an OKS "
        "of 0.5.",
    )
    parser.add_argument("--precision", type=float, default=0.7, help="wanted, in 0..1 (0.7)")
    add_results_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        people = judge_people(*read_named_results(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"score_threshold: {error}")
    thresholds = np.arange(0, people.scores.max(initial=0), _STEP)
    rows = [(threshold, *people.at_least(threshold)) for threshold in thresholds]
    header = ("score at least", "people", "precision", "recall")
    print(tabulate(rows, header, tablefmt="pipe", floatfmt=(".2f", "d", ".3f", ".3f")))
    points = people.score_precision()
    print(f"DEMO.SCORE_PRECISION: {points or _why_unmeasured(people)}")
    lowest = people.lowest_threshold(arguments.precision)
    if lowest is None:
        print(f"No threshold has a precision of {arguments.precision:g}.")
        return
    *_, recall = people.at_least(lowest)
    print(
        f"The lowest threshold with a precision of {arguments.precision:g}: {lowest}, "
        f"with a recall of {recall:.3f}"
    )


if __name__ == "__main__":
    main()
