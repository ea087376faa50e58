"""What pycocotools counts, as this package and Detectron2 report it."""

from __future__ import annotations

import math


def in_percent(metric: float) -> float:
    """A metric of pycocotools, 0 to 1, in percent; NaN for its -1: there are no such persons."""
    return 100 * float(metric) if metric >= 0 else math.nan
