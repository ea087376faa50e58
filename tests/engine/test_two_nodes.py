"""A training on two nodes, each with its own torchrun, on the loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Images of one size, since padding depends on what else is in a process's batch; and SGD, a step
# that is proportional to the gradient.
_OPTIONS = (
    *("INPUT.CROP.ENABLED", "False", "SOLVER.OPTIMIZER", "SGD"),
    *("SOLVER.CLIP_GRADIENTS.ENABLED", "False", "SOLVER.IMS_PER_BATCH", "4"),
    *("SOLVER.MAX_ITER", "4", "DATASETS.TEST", "()"),
)


def start(repository: Path, launcher: tuple[str, ...], output: Path) -> subprocess.Popen:
    folder = Path(__file__).parent
    script = (str(folder / "train_net_fixed_statistics.py"), "--config-file")
    return subprocess.Popen(
        [
            *(sys.executable, *launcher, *script, str(folder / "tiny.yaml")),
            *(*_OPTIONS, "OUTPUT_DIR", str(output)),
        ],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    text, _ = process.communicate(timeout=500)
    assert process.returncode == 0, text[-3000:]


def final(folder: Path) -> dict:
    return torch.load(folder / "model_final.pth", map_location="cpu", weights_only=True)


@pytest.mark.slow
def test_two_nodes_train_as_one_process_does(repository, tmp_path, closed_port):
    place = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{closed_port}")
    torchrun = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *place)
    # Each node has a disk of its own; the first process alone writes checkpoints.
    nodes = [start(repository, torchrun, tmp_path / f"node{number}") for number in (0, 1)]
    for node in nodes:
        finish(node)
    (written,) = tmp_path.glob("node*/model_final.pth")
    finish(start(repository, (), tmp_path / "alone"))
    alone, both = final(tmp_path / "alone"), final(written.parent)
    assert alone["iteration"] == both["iteration"] == 3
    assert alone["model"].keys() == both["model"].keys()
    for name, value in alone["model"].items():
        torch.testing.assert_close(both["model"][name], value, rtol=1e-4, atol=2e-5, msg=name)
