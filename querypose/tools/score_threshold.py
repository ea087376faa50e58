"""How many people above a score are right: ``python -m querypose.tools.score_threshold``.

Helps to choose ``DEMO.CONFIDENCE_THRESHOLD`` for a model, from the results file that its evaluation
wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from querypose.evaluation.ground_truth import GroundTruth
from querypose.tools.dataset_arguments import add_dataset_arguments, register_datasets
from querypose.tools.judged_results import match_at_half, read_dataset_results

_STEP = 0.05


class JudgedPeople(NamedTuple):
    """Predicted people of a whole dataset, beside the labeled ones.

    Attributes:
        scores: (n,) float, falling; without those that COCO ignores.
        right: (n,) bool, whether the person has an OKS of at least one half with a labeled one
            whom nobody of a higher score has.
        num_labeled: people with keypoints.
    """

    scores: np.ndarray
    right: np.ndarray
    num_labeled: int

    def above(self, threshold: float) -> tuple[int, float, float]:
        """People above a score: how many, their precision and their recall.

        Where there are none, precision is 1.
        """
        kept = self.right[self.scores > threshold]
        precision = float(kept.mean()) if len(kept) else 1.0
        return len(kept), precision, float(kept.sum()) / max(self.num_labeled, 1)

    def lowest_threshold(self, precision: float) -> float:
        """The score that people must exceed to have at least this precision all together."""
        precisions = self.right.cumsum() / np.arange(1, len(self.right) + 1)
        sufficient = np.flatnonzero(precisions >= precision)
        # One position after the last of them, or before all.
        following = sufficient[-1] + 1 if len(sufficient) else 0
        return float(self.scores[following]) if following < len(self.scores) else 0.0


def judge_people(
    annotations: GroundTruth, results: Sequence[dict[str, Any]], sigmas: Sequence[float]
) -> JudgedPeople:
    """Matches results with labeled people as COCO's evaluation does, at an OKS of one half.

    Args:
        annotations: of keypoints.
        results: in COCO's format.
        sigmas: of the keypoints' OKS.
    """
    evaluation = match_at_half(annotations, results, sigmas)
    images = [image for image in evaluation.evalImgs if image is not None]
    scores = np.concatenate([[], *(image["dtScores"] for image in images)])
    right, ignored = (
        np.concatenate([[], *(image[key][0] for image in images)]).astype(bool)
        for key in ("dtMatches", "dtIgnore")
    )
    labeled = sum(int((1 - np.asarray(image["gtIgnore"])).sum()) for image in images)
    order = np.argsort(-scores[~ignored], kind="stable")
    return JudgedPeople(scores[~ignored][order], right[~ignored][order], labeled)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints precision and recall above every score, and which score gives a wanted precision."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.score_threshold",
        description="Say how many of the people above a score have an OKS of at least 0.5, and "
        "how many of the labeled people they are.",
    )
    parser.add_argument("name", help="dataset that was evaluated")
    parser.add_argument(
        "results", type=Path, help="OUTPUT_DIR/inference/NAME/coco_instances_results.json"
    )
    parser.add_argument("--precision", type=float, default=0.7, help="wanted, in 0..1")
    add_dataset_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        register_datasets(arguments)
        people = judge_people(*read_dataset_results(arguments.name, arguments.results))
    except (OSError, ValueError) as error:
        sys.exit(f"score_threshold: {error}")
    thresholds = np.arange(0, people.scores.max(initial=0), _STEP)
    rows = [(threshold, *people.above(threshold)) for threshold in thresholds]
    header = ("score above", "people", "precision", "recall")
    print(tabulate(rows, header, tablefmt="pipe", floatfmt=(".2f", "d", ".3f", ".3f")))
    lowest = people.lowest_threshold(arguments.precision)
    *_, recall = people.above(lowest)
    print(
        f"The lowest threshold with a precision of {arguments.precision:g}: {lowest:.3f}, "
        f"with a recall of {recall:.3f}"
    )


if __name__ == "__main__":
    main()
