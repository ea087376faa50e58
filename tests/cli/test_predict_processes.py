"""``querypose-predict`` in a process that dies, and in two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from querypose.cli.predict import main

_NUM_IMAGES = 60


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums over several threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def arguments(tiny_arguments, tmp_path) -> Callable[[Path], list[str]]:
    """``arguments(output)``: of the command, on images of two sizes, which share no batch."""
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(1, _NUM_IMAGES + 1):
        size = (48, 64, 3) if number % 3 else (64, 48, 3)
        Image.fromarray(random.integers(0, 255, size, np.uint8)).save(photos / f"{number}.png")
    fixed = ("--shard-size", "2", "--batch-size", "2", "--device", "cpu")
    return lambda output: [
        *(str(photos), "--output", str(output), "--confidence-threshold", "0"),
        *(*fixed, *tiny_arguments),
    ]


def start(command: Sequence[str], repository: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def shards(folder: Path) -> dict[str, int]:
    """When each shard was written, by name."""
    files = (folder / "shards").glob("[0-9]*.json")
    return {file.name: file.stat().st_mtime_ns for file in files}


def test_a_killed_run_continues(arguments, repository, tmp_path):
    # As the command that pip installs.
    script = tmp_path / "querypose-predict"
    script.write_text("from querypose.cli.predict import main\nmain()\n")
    killed = tmp_path / "killed"
    process = start([str(script), *arguments(killed)], repository)
    while len(shards(killed)) < 3:
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = shards(killed)
    assert 3 <= len(finished) < _NUM_IMAGES // 2
    assert not (killed / "results.json").exists()

    main(arguments(killed))
    main(arguments(tmp_path / "alone"))
    expected = (tmp_path / "alone" / "results.json").read_bytes()
    assert (killed / "results.json").read_bytes() == expected
    assert {row["image_id"] for row in json.loads(expected)} == {*range(1, _NUM_IMAGES + 1)}
    # No finished shard was written again, and nothing unfinished is left.
    assert shards(killed).items() > finished.items()
    assert not list((killed / "shards").glob(".*"))


@pytest.mark.slow
def test_two_processes_give_the_same_file(arguments, repository, tmp_path):
    both = tmp_path / "both"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [*torchrun, "-m", "querypose", "predict", *arguments(both)]
    process = start(command, repository)
    text, _ = process.communicate(timeout=500)
    assert process.returncode == 0, text[-3000:]
    assert "processes: 2." in text
    main(arguments(tmp_path / "alone"))
    for name in ("results.json", "images.json", "skipped.json"):
        assert (both / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
