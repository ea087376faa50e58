"""How near the keypoint decoder comes to the speed of a plain large convolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from tabulate import tabulate
from torch import nn

from querypose.tools.benchmark.cost import KeypointStage, count_multiply_adds
from querypose.tools.benchmark.setting import Setting
from querypose.tools.benchmark.workload import Workload

# A convolution of the keypoint decoder's own kind on a large map.
_PLAIN_CHANNELS, _PLAIN_SIDE = 512, 112


@torch.inference_mode()
def efficiency_table(setting: Setting, people: Sequence[int], *, repeats: int) -> str:
    """GFLOP/s (two per multiply-add) of one keypoint stage, beside a plain convolution's.

    Args:
        setting: names the model.
        people: numbers of instances to decode at once.
        repeats: counted rounds; every round runs each row once.
    """
    model = Workload(setting).model.eval()
    stage = KeypointStage(model.decoder.keypoint_stages[0])
    plain = nn.Conv2d(_PLAIN_CHANNELS, _PLAIN_CHANNELS, 3, padding=1).to(setting.device)
    picture = torch.rand(1, _PLAIN_CHANNELS, _PLAIN_SIDE, _PLAIN_SIDE, device=setting.device)
    rows: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]] = {
        f"plain 3x3 convolution, {_PLAIN_CHANNELS} channels, {_PLAIN_SIDE}x{_PLAIN_SIDE}": (
            plain,
            (picture,),
        )
    }
    for count in people:
        rows[f"keypoint stage, {count} people"] = (stage, stage.inputs(model.decoder, count))
    work = {name: count_multiply_adds(*row) for name, row in rows.items()}
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats + 1):
        for name, (module, inputs) in rows.items():
            seconds[name].append(_time(lambda m=module, i=inputs: m(*i), setting.device))
    speeds = {name: 2 * work[name] / median(times[1:]) / 1e9 for name, times in seconds.items()}
    reference = next(iter(speeds.values()))
    return tabulate(
        [(name, f"{speed:.0f}", f"{speed / reference:.2f}") for name, speed in speeds.items()],
        headers=("what", "GFLOP/s", "relative"),
        tablefmt="github",
    )


def _time(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
