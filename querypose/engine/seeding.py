"""Seeds that depend on the position in the training, so that no random state needs saving."""

from __future__ import annotations

import random

import numpy as np
import torch


def mixed_seed(seed: int, *position: int) -> int:
    """A 32-bit seed that differs between the positions of a run and between runs."""
    return int(np.random.SeedSequence([seed, *position]).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's global generators.

    Unlike ``detectron2.utils.env.seed_all_rng`` it does not set ``PYTHONHASHSEED``.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
