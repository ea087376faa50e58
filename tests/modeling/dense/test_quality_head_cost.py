"""Time and memory of CIR-QEM's keypoints where they are needed, beside those of all cells."""

import multiprocessing
import re
import time
from pathlib import Path
from statistics import median

import pytest
import torch
from tabulate import tabulate

from querypose.modeling.dense.cells import STRIDE, Cells
from querypose.modeling.dense.quality_head import QualityHead

_HRNET_W32_CHANNELS = 480
_PEAKS, _OWNED_CELLS = 30, 400
_RUNS = 3
_STATUS = Path("/proc/self/status")


def _make_cells(size, count):
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(size * size, generator=generator)[:count].sort().values
    return Cells(torch.zeros_like(chosen), chosen // size, chosen % size)


def _run(head, features, cells, everywhere):
    maps = head(features)
    if everywhere:
        ways = cells.read(head.displacements_everywhere(maps)).unflatten(1, (-1, 2))
        poses = cells.positions[:, None] + ways
    else:
        poses = head.poses_at(maps, cells)
    if head.training:
        (poses.mean() + maps.scores.mean()).backward()


def _read_mebibytes(name):
    return int(re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text())[1]) / 1024


def _reset_peak():
    """Makes the peak of this process what it has now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _read_mebibytes("VmRSS")


def _measure(pixels, training, everywhere, connection):
    torch.manual_seed(0)
    torch.set_num_threads(2)
    size = pixels // STRIDE
    head = QualityHead(in_channels=_HRNET_W32_CHANNELS, num_keypoints=17).train(training)
    features = torch.rand(1, _HRNET_W32_CHANNELS, size, size)
    cells = _make_cells(size, _OWNED_CELLS if training else _PEAKS)
    with torch.set_grad_enabled(training):
        small = features[..., :8, :8]
        _run(head, small, _make_cells(8, 4), everywhere)
        before = _reset_peak()
        seconds = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            _run(head, features, cells, everywhere)
            seconds.append(time.perf_counter() - start)
    connection.send((median(seconds), _read_mebibytes("VmHWM") - before))


def _measure_alone(*case):
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(*case, sender))
    process.start()
    measured = receiver.recv()
    process.join()
    return measured


@pytest.mark.slow
@pytest.mark.skipif(not _STATUS.exists(), reason="reads the peak memory of a process from Linux")
def test_some_cells_cost_less_than_all():
    rows = []
    for pixels in (512, 640):
        for training in (False, True):
            sparse, dense = (_measure_alone(pixels, training, all_) for all_ in (False, True))
            kind = "training" if training else "inference"
            rows.append((pixels, kind, *(1000 * sparse[0], sparse[1], 1000 * dense[0], dense[1])))
            assert sparse[0] < dense[0]
            assert sparse[1] < dense[1]
    headers = ("pixels", "", "needed: ms", "MiB", "all cells: ms", "MiB")
    print(tabulate(rows, headers=headers, tablefmt="github", floatfmt=".0f"))
