"""How fast a training gets its images."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from tabulate import tabulate

from querypose.data.datasets.coco import check_configured_datasets, register_configured_datasets
from querypose.data.mapper_registry import build_train_mapper
from querypose.engine.train_loader import Draw, ResumableTrainLoader, SeededDataset
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import read_setting_config

_MEASURED_BATCHES = 8


def data_table(settings: Sequence[Setting], count: int) -> str:
    """One row per setting: images that one process reads and augments in a second.

    Args:
        settings: their configs name the training datasets and the mapper.
        count: images to map, in the order of the dataset, again if there are fewer.
    """
    rows = [(each.config_file, 1 / _seconds_per_image(each, count)) for each in settings]
    return tabulate(
        rows, headers=("config", "images/s of one process"), tablefmt="github", floatfmt=".1f"
    )


def batch_seconds(setting: Setting) -> float | None:
    """Seconds in which one process reads and augments a training batch.

    None for inference, or if the options do not name ``DATASETS.TRAIN``.
    """
    if not setting.train or "DATASETS.TRAIN" not in setting.opts[::2]:
        return None
    return setting.batch * _seconds_per_image(setting, _MEASURED_BATCHES * setting.batch)


def _seconds_per_image(setting: Setting, count: int) -> float:
    cfg = read_setting_config(setting)
    register_configured_datasets(cfg)
    check_configured_datasets(cfg)
    parts = ResumableTrainLoader.from_config(cfg, build_train_mapper(cfg))
    images = SeededDataset(parts["records"], parts["mapper"], parts["seed"])
    # As in the worker process of a training.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _ = images[Draw(index=0, position=0)]
        start = time.perf_counter()
        for position in range(1, count + 1):
            _ = images[Draw(position % len(parts["records"]), position)]
        return (time.perf_counter() - start) / count
    finally:
        torch.set_num_threads(threads)
