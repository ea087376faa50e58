"""Measurements as tables."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from querypose.tools.benchmark.worker import Measurement

_PARTS = ("backbone", "box decoder", "keypoint decoder")
_MEBI = 2**20


def parts_table(measurements: Sequence[Measurement]) -> str:
    """A row per setting: time by part, pictures per second, memory, cost."""
    first = measurements[0].seconds["total"]
    return tabulate(
        [_row(measurement, first) for measurement in measurements],
        headers="keys",
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", *["right"] * 10),
    )


def _row(measurement: Measurement, first_total: float) -> dict[str, str]:
    setting, seconds = measurement.setting, measurement.seconds
    rest = seconds["total"] - sum(seconds.get(part, 0.0) for part in _PARTS)
    row = {"setting": setting.label}
    row |= {f"{part} ms": _milliseconds(seconds.get(part)) for part in _PARTS}
    # In training that is matching, losses, the backward pass and the optimiser.
    row["rest ms"] = _milliseconds(rest if _PARTS[0] in seconds else None)
    row["total ms"] = _milliseconds(seconds["total"])
    row["relative"] = f"{seconds['total'] / first_total:.3f}"
    row["pictures/s"] = f"{setting.batch / seconds['total']:.2f}"
    row["peak MiB"] = f"{measurement.peak_bytes / _MEBI:.0f}"
    row["M parameters"], row["GMAC"] = _cost(measurement)
    return row


def _cost(measurement: Measurement) -> tuple[str, str]:
    """Parameters, and the multiply-adds of one picture."""
    cost, setting = measurement.cost, measurement.setting
    if cost is None:
        return "-", "-"
    parameters = f"{cost.parameters / 1e6:.1f}"
    if setting.train:
        return parameters, "-"
    return parameters, f"{cost.multiply_adds(measurement.decoded) / 1e9:.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
