"""The command: ``python -m querypose compare_trainings --help``."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from querypose.atomic_files import replace_file
from querypose.config_arguments import add_config_options
from querypose.tools.compare_trainings.checks import check_trainings
from querypose.tools.compare_trainings.comparison import compare, comparison_table
from querypose.tools.compare_trainings.curves import plot_curves
from querypose.tools.compare_trainings.training import Training

_CONFIGS = tuple(
    f"quick/{name}_lite0" for name in ("querypose", "quality_pose", "pinet", "keypoint_rcnn")
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m querypose compare_trainings",
        description="Train configs on the same number of images, and compare what they learn. A "
        "training that was interrupted goes on.",
    )
    parser.add_argument(
        "output", type=Path, help="folder of the trainings, table.md and curves.png"
    )
    parser.add_argument("--config-files", nargs="+", metavar="CONFIG", default=list(_CONFIGS))
    parser.add_argument("--images", type=int, default=60_000, help="that each sees (60000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--jobs", type=int, default=1, help="trainings at the same time, which share the cores (1)"
    )
    add_config_options(parser)
    return parser


def main(command_line: Sequence[str] | None = None) -> None:
    """Runs the command."""
    arguments = _parser().parse_args(command_line)
    groups = [
        [
            Training(
                config_file,
                seed,
                arguments.images,
                arguments.output / Path(config_file).stem / f"seed_{seed}",
                tuple(arguments.opts),
            )
            for seed in arguments.seeds
        ]
        for config_file in arguments.config_files
    ]
    try:
        _check_at_least_one("--images", arguments.images)
        _check_at_least_one("--jobs", arguments.jobs)
        trainings = [training for group in groups for training in group]
        check_trainings(trainings)
        _run(trainings, arguments.jobs)
        table = comparison_table(compare(groups))
        replace_file(arguments.output / "table.md", lambda file: file.write(f"{table}\n".encode()))
        plot_curves(groups).savefig(arguments.output / "curves.png", dpi=150)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"compare_trainings: {error}")
    print(table)


def _check_at_least_one(option: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{option} must be at least 1, got {value}.")


def _stop(*_: object) -> None:
    """Ends the trainings, which save a checkpoint, and the command."""
    for process in multiprocessing.active_children():
        process.terminate()
    sys.exit("compare_trainings: stopped; the same command goes on.")


def _run(trainings: Sequence[Training], num_jobs: int) -> None:
    """Runs trainings, some of them at the same time."""
    num_threads = max(1, torch.get_num_threads() // num_jobs)
    handler = signal.signal(signal.SIGTERM, _stop)
    with ThreadPoolExecutor(num_jobs) as executor:
        running = {executor.submit(each.run, num_threads): each for each in trainings}
        try:
            for future in as_completed(running):
                future.result()
                print(f"{running[future].folder}: trained", flush=True)
        except BaseException:
            # Those that have not begun would hold the error up for hours.
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            signal.signal(signal.SIGTERM, handler)


if __name__ == "__main__":
    main()
