"""Tables of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from querypose.tools.benchmark.worker import Measurement

_MEBI = 2**20


def parts_table(measurements: Sequence[Measurement]) -> str:
    """One row per setting: time by part, images per second, memory, cost.

    Worker processes prepare the next batch meanwhile, so their ``data ms`` are not in the total.
    """
    parts = list(dict.fromkeys(part for each in measurements for part in each.seconds))
    parts.remove("total")
    first = measurements[0].seconds["total"]
    with_data = any(measurement.data_seconds is not None for measurement in measurements)
    rows = [_row(measurement, parts, first, with_data) for measurement in measurements]
    return tabulate(
        rows,
        headers="keys",
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * (len(rows[0]) - 2)),
    )


def _row(
    measurement: Measurement, parts: Sequence[str], first_total: float, with_data: bool
) -> dict[str, str]:
    setting, seconds, cost = measurement.setting, measurement.seconds, measurement.cost
    row = {"setting": setting.label, "config": Path(setting.config_file).stem}
    if with_data:
        row["data ms"] = _milliseconds(measurement.data_seconds)
    row |= {f"{part} ms": _milliseconds(seconds.get(part)) for part in parts}
    # In training: losses.
    rest = seconds["total"] - sum(seconds.get(part, 0.0) for part in parts)
    row["rest ms"] = _milliseconds(rest if len(seconds) > 1 else None)
    row["total ms"] = _milliseconds(seconds["total"])
    row["relative"] = f"{seconds['total'] / first_total:.3f}"
    row["images/s"] = f"{setting.batch / seconds['total']:.2f}"
    row["peak MiB"] = f"{measurement.peak_bytes / _MEBI:.0f}"
    row["M parameters"] = f"{cost.parameters / 1e6:.1f}"
    row["GMAC/image"] = f"{cost.multiply_adds / setting.batch / 1e9:.3g}"
    return row


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
