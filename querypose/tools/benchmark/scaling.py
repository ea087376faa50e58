"""Time by number of people, queries and pixels, memory by batch size: a table and a figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from tabulate import tabulate

from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.worker import measure

_PEOPLE = (1, 2, 5, 10, 20, 50, 100)
_QUERIES = (50, 100, 200, 300, 500)
_SIZES = ((256, 320), (384, 480), (512, 640), (800, 1000), (800, 1333))
_BATCHES = (1, 2, 4)


def scaling_report(base: Setting, *, repeats: int, figure: Path) -> str:
    """Measures along four axes; returns a table and writes the figure to ``figure``."""
    axes = {
        "people": [(count, replace(base, people=count)) for count in _PEOPLE],
        "queries": [
            (count, replace(base, opts=(*base.opts, "MODEL.QUERYPOSE.NUM_QUERIES", str(count))))
            for count in _QUERIES
        ],
        "megapixels": [
            (height * width / 1e6, replace(base, height=height, width=width))
            for height, width in _SIZES
        ],
        "training batch": [(count, replace(base, batch=count, train=True)) for count in _BATCHES],
    }
    curves = {axis: _curve(points, repeats) for axis, points in axes.items()}
    _draw(curves, figure)
    rows = [
        (axis, f"{value:g}", f"{milliseconds:.0f}", f"{mebibytes:.0f}")
        for axis, curve in curves.items()
        for value, milliseconds, mebibytes in curve
    ]
    return tabulate(rows, headers=("axis", "value", "ms", "peak MiB"), tablefmt="github")


def _curve(
    points: Iterable[tuple[float, Setting]], repeats: int
) -> list[tuple[float, float, float]]:
    """(value, ms, peak MiB) of each point."""
    values, settings = zip(*points, strict=True)
    return [
        (value, 1000 * measured.seconds["total"], measured.peak_bytes / 2**20)
        for value, measured in zip(values, measure(settings, repeats=repeats), strict=True)
    ]


def _draw(curves: dict[str, list[tuple[float, float, float]]], path: Path) -> None:
    figure, panels = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3.2))
    for panel, (axis, curve) in zip(panels, curves.items(), strict=True):
        values, milliseconds, mebibytes = zip(*curve, strict=True)
        memory = axis.startswith("training")
        panel.plot(values, mebibytes if memory else milliseconds, marker="o")
        panel.set(xlabel=axis, ylabel="peak MiB" if memory else "ms per image", ylim=(0, None))
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
