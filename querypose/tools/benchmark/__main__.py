"""The command: ``python -m querypose.tools.benchmark --help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from querypose.tools.benchmark.data import data_table
from querypose.tools.benchmark.report import parts_table
from querypose.tools.benchmark.scaling import scaling_report
from querypose.tools.benchmark.setting import Setting, parse_setting
from querypose.tools.benchmark.worker import measure

_DEFAULT_CONFIG = "coco/querypose_r50_light_3x"
_PEER = "config_file=COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml"
_INFERENCE_SUITE = ("people=100", "people=5", "people=10", f"people=5 {_PEER}")
_TRAINING_SUITE = ("train=1 batch=2", f"train=1 batch=2 {_PEER}")
_SMALL_TRAINING_SUITE = tuple(
    f"train=1 batch=4 size=384x384 people=2 config_file=quick/{name}"
    for name in ("lite0", "pinet_lite0", "quality_pose_lite0", "keypoint_rcnn_lite0")
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m querypose.tools.benchmark",
        description="Time the parts of a model: the median of interleaved runs after a warm-up.",
        epilog="A setting consists of words: size=HxW, batch=N, people=N (predicted, or annotated "
        "in training), image=FILE, train=1, compiled=1 (the backbone, by torch.compile), "
        "processor_time=1 (of all threads, for a busy machine), config_file=FILE, and config keys "
        "with values. An untrained model is made to find exactly this number of people, and to "
        "match them in training like a trained model. With DATASETS.TRAIN among its keys, a row of "
        "training tells how long one process reads and augments a batch, at the config's size.",
    )
    parser.add_argument("--config-file", default=_DEFAULT_CONFIG)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each setting")
    parser.add_argument("--warm-up", type=int, default=1, help="runs of each setting before")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--compare", nargs="+", metavar="SETTING", default=[""], help="settings to compare"
    )
    parser.add_argument("--suite", action="store_true", help="compare with Keypoint R-CNN")
    parser.add_argument(
        "--data",
        type=int,
        metavar="IMAGES",
        help="time the training mappers of the settings to compare on so many images",
    )
    parser.add_argument(
        "--scaling",
        type=Path,
        metavar="FIGURE",
        help="plot the time of the settings to compare against people, queries and pixels",
    )
    parser.add_argument(
        "opts", nargs="*", default=[], help="config keys and values for all settings"
    )
    return parser


def main(command_line: Sequence[str] | None = None) -> None:
    """Runs the command."""
    arguments = _parser().parse_args(command_line)
    if arguments.threads:
        # Read by the processes of the settings.
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    try:
        base = Setting(arguments.config_file, opts=tuple(arguments.opts), device=arguments.device)
        settings = [parse_setting(text, base) for text in arguments.compare]
        if arguments.data:
            print(data_table(settings, arguments.data))
        elif arguments.scaling:
            print(scaling_report(settings, repeats=arguments.repeats, figure=arguments.scaling))
        elif arguments.suite:
            _print_suite(base, arguments.repeats)
        else:
            _print_parts(settings, arguments.repeats, arguments.warm_up)
    except (OSError, ValueError) as error:
        sys.exit(f"benchmark: {error}")


def _print_suite(base: Setting, repeats: int) -> None:
    for index, texts in enumerate((_INFERENCE_SUITE, _TRAINING_SUITE, _SMALL_TRAINING_SUITE)):
        if index:
            print()
        _print_parts([parse_setting(text, base) for text in texts], repeats)


def _print_parts(settings: Sequence[Setting], repeats: int, warm_up: int = 1) -> None:
    print(parts_table(measure(settings, repeats=repeats, warm_up=warm_up)))


if __name__ == "__main__":
    main()
