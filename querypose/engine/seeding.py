"""Randomness as a function of where the training is, so that nothing of it needs saving."""

from __future__ import annotations

import random

import numpy as np
import torch


def mixed_seed(seed: int, *position: int) -> int:
    """A 32-bit seed that differs for every position of one run, and for every run."""
    return int(np.random.SeedSequence([seed, *position]).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's global generators.

    Unlike ``detectron2.utils.env.seed_all_rng`` it leaves the environment of later processes alone.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
