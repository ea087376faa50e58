"""Freed memory is used again, which makes small models faster on a processor."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from statistics import median

import pytest
from tabulate import tabulate

from querypose.freed_memory import _M_MMAP_MAX, _M_TRIM_THRESHOLD, keep_freed_memory
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import Workload

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")

_RUNS = 3
# What glibc's own settings adapt to in a process that frees large blocks, by mallopt's number.
_OF_GLIBC = {_M_MMAP_MAX: 65536, _M_TRIM_THRESHOLD: 2**26, -3: 2**25}
COUNT_FAULTS = """
import resource
import torch

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for code in {}:
    exec(code)
    # Splinters of aligned blocks, which glibc's cache of small ones keeps apart (seven of a size),
    # let the first blocks find no place: up to nine were seen.
    print([count_faults() for _ in range(40)][-1])
"""
KEEP = "from querypose.freed_memory import keep_freed_memory; keep_freed_memory()"
TRAINER = """
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer
QueryPoseTrainer(read_config({config!r}, ["OUTPUT_DIR", {output!r}]))
"""
PREDICTOR = """
from querypose.cli.arguments import build_parser
from querypose.cli.work import build_predictor
build_predictor(build_parser().parse_args(["image.jpg", "--device", "cpu"]))
"""


def count_faults(*codes: str) -> list[int]:
    """Page faults of a block of 40 MiB after each code, once blocks of its size were freed."""
    command = [sys.executable, "-c", COUNT_FAULTS.format(codes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [int(line) for line in done.stdout.splitlines()[-len(codes) :]]


def test_a_block_that_was_freed_is_used_again():
    before, after = count_faults("", KEEP)
    assert before > 100
    assert after < 10


def test_trainers_and_commands_keep_their_memory(repository, tmp_path):
    config = str(repository / "tests" / "engine" / "tiny.yaml")
    assert count_faults(TRAINER.format(config=config, output=str(tmp_path))) < [10]
    assert count_faults(PREDICTOR) < [10]


def give_freed_memory_back() -> None:
    libc = ctypes.CDLL(None)
    assert all(libc.mallopt(number, value) for number, value in _OF_GLIBC.items())


def processor_seconds(workload: Workload) -> tuple[float, float]:
    """Seconds of this process, and those that the kernel computed for it."""
    before = os.times()
    workload.run()
    after = os.times()
    kernel = after.system - before.system
    return after.user - before.user + kernel, kernel


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", ["pinet_lite0", "quality_pose_lite0"])
def test_small_dense_models_become_faster(name, train):
    height, width, batch = (192, 192, 16) if train else (384, 576, 1)
    workload = Workload(
        Setting(f"quick/{name}", height=height, width=width, batch=batch, people=2, train=train)
    )
    rounds = []
    for _ in range(_RUNS):
        rounds.append([])
        for prepare in (give_freed_memory_back, keep_freed_memory):
            prepare()
            workload.run()
            rounds[-1].append(processor_seconds(workload))
    before, after = (median(total for total, _ in runs) for runs in zip(*rounds, strict=True))
    ratio = median(given_back / kept for (given_back, _), (kept, _) in rounds)
    row = (workload.setting.label, name, 1000 * before, 1000 * after, ratio)
    headers = ("setting", "model", "given back: ms", "kept: ms", "times as fast")
    print(tabulate([row], headers, tablefmt="github", floatfmt=(*"gg", ".0f", ".0f", ".2f")))
    # Other programs disturb the kernel's time less than the total.
    of_kernel = [median(kernel for _, kernel in runs) for runs in zip(*rounds, strict=True)]
    assert of_kernel[1] < of_kernel[0] / 2
