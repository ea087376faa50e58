"""Learning curves in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from querypose.tools.compare_trainings.training import Training


def plot_curves(groups: Sequence[Sequence[Training]]) -> Figure:
    """Draws AP over the number of images seen: the mean of the seeds, and their range.

    Args:
        groups: for each config, its trainings with different seeds.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for group in groups:
        curves = [
            # A model that predicts nobody is worth nothing.
            {
                point.num_images: np.nan_to_num(point.metrics["keypoints/AP"])
                for point in training.curve()
            }
            for training in group
        ]
        # A training that is not as far as the others has no part in the later points.
        images = sorted(set.intersection(*map(set, curves)))
        values = np.array([[curve[count] for count in images] for curve in curves])
        axes.plot(images, values.mean(axis=0), marker="o", label=group[0].name)
        axes.fill_between(images, values.min(axis=0), values.max(axis=0), alpha=0.2)
    axes.set(xlabel="images seen", ylabel="keypoint AP", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
