"""How fast a training gets its images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import torch
from tabulate import tabulate

from querypose.data.datasets.coco import check_configured_datasets, register_configured_datasets
from querypose.data.datasets.records import load_training_records
from querypose.data.mapper_registry import build_train_mapper
from querypose.engine.seeding import seed_everything
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import read_setting_config


def data_table(settings: Sequence[Setting], count: int) -> str:
    """One row per setting: images that one process reads and augments in a second.

    Args:
        settings: their configs name the training datasets and the mapper.
        count: images to map, from the first one on, again if there are fewer.
    """
    rows = [(setting.config_file, _images_per_second(setting, count)) for setting in settings]
    return tabulate(
        rows, headers=("config", "images/s of one process"), tablefmt="github", floatfmt=".1f"
    )


def _images_per_second(setting: Setting, count: int) -> float:
    cfg = read_setting_config(setting)
    register_configured_datasets(cfg)
    check_configured_datasets(cfg)
    records = itertools.cycle(
        load_training_records(cfg.DATASETS.TRAIN, filter_empty=True, min_keypoints=1)
    )
    mapper = build_train_mapper(cfg)
    seed_everything(0)
    # As in the worker process of a training.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mapper(next(records))
        start = time.perf_counter()
        for record in itertools.islice(records, count):
            mapper(record)
        return count / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
