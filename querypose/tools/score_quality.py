"""How well scores predict the OKS of poses: ``python -m querypose.tools.score_quality``.

Plots the OKS of predicted persons over their scores (figure 5 of Xiao et al., AAAI 2022), from the
results file of an evaluation. If scores equal the OKS, the points are on the diagonal; if scores
rank persons by their OKS, the rank correlation is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import spearmanr
from tabulate import tabulate

from querypose.tools.judged_results import (
    MATCHING_OKS,
    add_results_arguments,
    evaluated_images,
    match_at_half,
    read_named_results,
    scores_and_ignored,
)

_NUM_BINS = 10


class RatedPersons(NamedTuple):
    """Predicted persons of a whole dataset, without those that COCO's evaluation ignores.

    Attributes:
        scores: (n,) float.
        oks: (n,) float, with the labeled person that each resembles most; 0 where there is none.
        nearest: (n,) bool, whether no other resembles some labeled person more. Without the
            others, models are compared by the same persons.
        duplicates: (n,) bool, whether a person of a better score has been found already: both have
            an OKS of at least 0.5 with the same labeled person, whom both resemble most.
    """

    scores: np.ndarray
    oks: np.ndarray
    nearest: np.ndarray
    duplicates: np.ndarray

    def where(self, kept: np.ndarray) -> RatedPersons:
        """A part of the persons, by an (n,) mask or by indices."""
        return RatedPersons(*(field[kept] for field in self))

    def best(self, count: int) -> RatedPersons:
        """Those with the ``count`` highest scores."""
        return self.where(np.argsort(-self.scores, kind="stable")[:count])

    @property
    def share_of_duplicates(self) -> float:
        """0 to 1; NaN of nobody."""
        return float(self.duplicates.mean()) if len(self.duplicates) else float("nan")

    @property
    def rank_correlation(self) -> float:
        """Spearman's correlation of scores and OKS; NaN if one of them is constant."""
        if len(self.scores) < 2 or np.ptp(self.scores) == 0 or np.ptp(self.oks) == 0:
            return float("nan")
        return float(spearmanr(self.scores, self.oks).statistic)

    def by_score(self) -> list[tuple[float, int, float]]:
        """For each range of scores: its middle, the number of persons, and their mean OKS."""
        edges = np.linspace(0, max(1.0, self.scores.max(initial=0)), _NUM_BINS + 1)
        bins = np.digitize(self.scores, edges[1:-1])
        return [
            (float(edges[i : i + 2].mean()), int((bins == i).sum()), self.oks[bins == i].mean())
            for i in range(_NUM_BINS)
            if (bins == i).any()
        ]


def rate_persons(
    annotations: COCO, results: Sequence[dict[str, Any]], sigmas: Sequence[float]
) -> RatedPersons:
    """Computes the OKS of every predicted person.

    Args:
        annotations: of the dataset.
        results: in COCO's format; the best 20 of each image count.
        sigmas: OKS standard deviations of the keypoints.
    """
    evaluation = match_at_half(annotations, results, sigmas)
    images = evaluated_images(evaluation)
    scores, ignored = scores_and_ignored(images)
    tables = [_oks_table(evaluation, image) for image in images]
    oks = np.concatenate([[], *(table.max(axis=1, initial=0) for table in tables)])
    nearest = np.concatenate([[], *map(_nearest, tables)]).astype(bool)
    duplicates = np.concatenate([[], *map(_duplicates, tables)]).astype(bool)
    return RatedPersons(scores, oks, nearest, duplicates).where(~ignored)


def _oks_table(evaluation: COCOeval, image: dict[str, Any]) -> np.ndarray:
    """OKS of the n predicted with the m labeled persons of an image, (n, m)."""
    key = image["image_id"], image["category_id"]
    labeled = [not person["_ignore"] for person in evaluation._gts[key]]
    table = np.asarray(evaluation.ious[key]).reshape(len(image["dtIds"]), len(labeled))
    return table[:, np.array(labeled, dtype=bool)]


def _nearest(table: np.ndarray) -> np.ndarray:
    """Which of n predicted persons are the most alike of all to a labeled one."""
    rows = np.arange(len(table))
    return np.isin(rows, table.argmax(axis=0)) if table.size else np.zeros(len(table), bool)


def _duplicates(table: np.ndarray) -> np.ndarray:
    """Which of n predicted persons, best scores first, show a labeled one for a second time."""
    if not table.size:
        return np.zeros(len(table), bool)
    found = np.where(table.max(axis=1) >= MATCHING_OKS, table.argmax(axis=1), -1)
    _, first = np.unique(found, return_index=True)
    return (found >= 0) & ~np.isin(np.arange(len(found)), first)


def plot_score_quality(persons: RatedPersons, title: str) -> Figure:
    """Draws the OKS of every person over its score, the means, and the diagonal."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(persons.scores, persons.oks, s=6, alpha=0.4, linewidths=0, label="persons")
    middles, _, means = zip(*persons.by_score(), strict=True)
    axes.plot(middles, means, "o-", color="tab:orange", label="mean OKS of a range of scores")
    axes.plot([0, 1], [0, 1], ":", color="gray", label="score = OKS")
    axes.set(
        xlabel="score",
        ylabel="OKS with the labeled person",
        title=f"{title}\nrank correlation {persons.rank_correlation:.3f}",
        ylim=(-0.02, 1.02),
    )
    axes.legend()
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Prints, and optionally plots, the mean OKS by score, the rank correlation and duplicates."""
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.score_quality",
        description="Measure how well the scores of a model predict the OKS of its poses.",
    )
    parser.add_argument(
        "--score-above", type=float, default=0.0, help="leave out persons of lower scores"
    )
    parser.add_argument("--output", type=Path, metavar="IMAGE", help="write a plot to this file")
    add_results_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        persons = rate_persons(*read_named_results(arguments))
        persons = persons.where(persons.scores >= arguments.score_above)
        if not len(persons.scores):
            raise ValueError(
                f"{arguments.results} names nobody of a score of {arguments.score_above:g} or "
                "above who counts in COCO's evaluation."
            )
        if arguments.output is not None:
            plot_score_quality(persons, arguments.name).savefig(arguments.output, dpi=150)
    except (OSError, ValueError) as error:
        sys.exit(f"score_quality: {error}")
    header = ("score about", "persons", "mean OKS")
    print(tabulate(persons.by_score(), header, tablefmt="pipe", floatfmt=(".2f", "d", ".3f")))
    nearest = persons.where(persons.nearest)
    print(
        f"Rank correlation (Spearman) of score and OKS: {persons.rank_correlation:.3f}; of the "
        f"{len(nearest.scores)} nearest to a labeled person: {nearest.rank_correlation:.3f}"
    )
    print(
        f"Found a second time: {persons.duplicates.sum()} of {len(persons.scores)} persons "
        f"({persons.share_of_duplicates:.1%})"
    )


if __name__ == "__main__":
    main()
