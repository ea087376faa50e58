"""What the trainings of one config came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from querypose.evaluation.ground_truth import count_matches
from querypose.evaluation.percent import in_percent
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.worker import Measurement, measure
from querypose.tools.compare_trainings.training import Training
from querypose.tools.judged_results import NobodyPredictedError, read_dataset_results
from querypose.tools.score_quality import rate_persons

_METRICS = ("AP", "AP50", "AR", "box AP", "duplicates %", "score-OKS correlation")
_OF_NOBODY = {name: 0.0 for name in _METRICS} | {"score-OKS correlation": math.nan}
# Places in pycocotools' summary.
_AP, _AP50, _AR = 0, 1, 5
# Pixels that sides of inputs are multiples of, and persons of a usual photo.
_STRIDE = 32
_NUM_PERSONS = 3
_REPEATS = 5


class Row(NamedTuple):
    """A config in the table of a comparison.

    Attributes:
        name: of the config.
        num_images: seen by each of its trainings.
        metrics: by name, one value per seed; NaN where there is none.
        images_per_second: of the fastest training.
        measurement: parameters and time of one image.
    """

    name: str
    num_images: int
    metrics: dict[str, list[float]]
    images_per_second: float
    measurement: Measurement


def compare(groups: Sequence[Sequence[Training]]) -> list[Row]:
    """Judges finished trainings, whose datasets are registered.

    Args:
        groups: for each config, its trainings with different seeds.

    Raises:
        OSError: a results file cannot be read.
        ValueError: the dataset has no annotations.
    """
    measurements = measure([_photo(group[0]) for group in groups], repeats=_REPEATS)
    rows = []
    for group, measurement in zip(groups, measurements, strict=True):
        judged = [_judge(training) for training in group]
        rows.append(
            Row(
                name=group[0].name,
                num_images=group[0].curve()[-1].num_images,
                metrics={name: [values[name] for values in judged] for name in _METRICS},
                images_per_second=max(training.images_per_second() for training in group),
                measurement=measurement,
            )
        )
    return rows


def comparison_table(rows: Sequence[Row]) -> str:
    """One row per config; of several seeds the mean and half the range, "-" where there is none."""
    cells = [
        {
            "config": row.name,
            "images seen": f"{row.num_images:,}",
            **{name: _mean_and_range(values) for name, values in row.metrics.items()},
            "M parameters": f"{row.measurement.cost.parameters / 1e6:.1f}",
            "ms per image": f"{1000 * row.measurement.seconds['total']:.0f}",
            "training images/s": f"{row.images_per_second:.1f}",
        }
        for row in rows
    ]
    alignment = ("left", *["right"] * (len(cells[0]) - 1))
    return tabulate(
        cells, headers="keys", tablefmt="pipe", disable_numparse=True, colalign=alignment
    )


def _judge(training: Training) -> dict[str, float]:
    """Metrics of the last evaluation, on the first test set."""
    cfg = training.read_config()
    dataset = cfg.DATASETS.TEST[0]
    try:
        sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
        results = read_dataset_results(dataset, training.results_file(), sigmas)
    except NobodyPredictedError:
        return _OF_NOBODY
    labels = results.annotations.labels
    stats = count_matches(labels, results.results, results.sigmas).stats
    persons = rate_persons(*results)
    num_labeled = sum(person["num_keypoints"] > 0 for person in labels.content["annotations"])
    values = (
        *map(in_percent, stats[[_AP, _AP50, _AR]]),
        training.curve()[-1].metrics["bbox/AP"],
        100 * persons.best(num_labeled).share_of_duplicates,
        persons.where(persons.nearest).rank_correlation,
    )
    return dict(zip(_METRICS, map(float, values), strict=True))


def _photo(training: Training) -> Setting:
    """One image of the test size, with an aspect ratio of 4:3."""
    cfg = training.read_config()
    height = cfg.INPUT.MIN_SIZE_TEST
    width = min(cfg.INPUT.MAX_SIZE_TEST, height * 4 / 3)
    return Setting(
        training.config_file,
        training.opts,
        height=_STRIDE * round(height / _STRIDE),
        width=_STRIDE * round(width / _STRIDE),
        people=_NUM_PERSONS,
        device=cfg.MODEL.DEVICE,
    )


def _mean_and_range(values: Sequence[float]) -> str:
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return "-"
    decimals = 2 if max(map(abs, values)) < 1 else 1
    text = f"{np.mean(values):.{decimals}f}"
    return f"{text} ± {np.ptp(values) / 2:.{decimals}f}" if len(values) > 1 else text
