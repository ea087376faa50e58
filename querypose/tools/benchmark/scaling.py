"""Time by number of people, queries and pixels, memory by batch size: a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from detectron2.modeling import META_ARCH_REGISTRY
from tabulate import tabulate

from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.worker import measure
from querypose.tools.benchmark.workload import read_setting_config

_PEOPLE = (1, 2, 5, 10, 20, 50, 100)
_QUERIES = (50, 100, 200, 300, 500)
_SIZES = ((256, 320), (384, 480), (512, 640), (800, 1000), (800, 1333))
_BATCHES = (1, 2, 4)


class Curve(NamedTuple):
    """Measurements of one model along one axis.

    Attributes:
        axis: what changes.
        model: name of the config.
        points: (value, milliseconds per run, peak MiB).
    """

    axis: str
    model: str
    points: list[tuple[float, float, float]]


def scaling_report(bases: Sequence[Setting], *, repeats: int, figure: Path) -> str:
    """Measures models along four axes; returns a table and writes the figure to ``figure``.

    Args:
        bases: one setting per model. A model without queries has no curve along their axis.
        repeats: measured runs of each point.
        figure: an image file.
    """
    curves: list[Curve] = []
    for base in bases:
        for axis, points in _axes(base).items():
            curves.append(Curve(axis, Path(base.config_file).stem, _measure(points, repeats)))
            # It takes long: what fails later loses nothing.
            _draw(curves, figure)
    rows = [
        (curve.model, curve.axis, f"{value:g}", f"{milliseconds:.0f}", f"{mebibytes:.0f}")
        for curve in curves
        for value, milliseconds, mebibytes in curve.points
    ]
    return tabulate(rows, headers=("model", "axis", "value", "ms", "peak MiB"), tablefmt="github")


def _axes(base: Setting) -> dict[str, list[tuple[float, Setting]]]:
    """By axis, values and their settings."""
    axes = {
        "people": [(count, replace(base, people=count)) for count in _PEOPLE],
        "megapixels": [
            (height * width / 1e6, replace(base, height=height, width=width))
            for height, width in _SIZES
        ],
        "training batch": [(count, replace(base, batch=count, train=True)) for count in _BATCHES],
    }
    model = META_ARCH_REGISTRY.get(read_setting_config(base).MODEL.META_ARCHITECTURE)
    key = getattr(model, "num_queries_key", None)
    if key is not None:
        axes["queries"] = [
            (count, replace(base, opts=(*base.opts, key, str(count)))) for count in _QUERIES
        ]
    return axes


def _measure(
    points: Sequence[tuple[float, Setting]], repeats: int
) -> list[tuple[float, float, float]]:
    values, settings = zip(*points, strict=True)
    return [
        (value, 1000 * measured.seconds["total"], measured.peak_bytes / 2**20)
        for value, measured in zip(values, measure(settings, repeats=repeats), strict=True)
    ]


def _draw(curves: Sequence[Curve], path: Path) -> None:
    axes = list(dict.fromkeys(curve.axis for curve in curves))
    figure, panels = plt.subplots(1, len(axes), figsize=(4 * len(axes), 3.4), squeeze=False)
    for panel, axis in zip(panels[0], axes, strict=True):
        memory = axis.startswith("training")
        for curve in curves:
            if curve.axis == axis:
                values, milliseconds, mebibytes = zip(*curve.points, strict=True)
                heights = mebibytes if memory else milliseconds
                panel.plot(values, heights, marker="o", label=curve.model)
        panel.set(xlabel=axis, ylabel="peak MiB" if memory else "ms per image", ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
