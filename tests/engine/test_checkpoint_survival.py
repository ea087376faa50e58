"""Checkpoints when the process dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer


class Tiny(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1000,), value))


def in_dying_process(action) -> None:
    """Runs ``action`` in a child, which must not survive it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half_and_die(data, file) -> None:
    file.write(b"PK, and not much more")
    file.flush()
    die()


@pytest.mark.parametrize(
    ("target", "deadly"),
    [("torch.save", write_half_and_die), ("os.fsync", die), ("pathlib.Path.replace", die)],
)
@pytest.mark.parametrize("name", ["model_0000001", "model_0000002"])
def test_killed_while_saving(tmp_path, monkeypatch, target, deadly, name):
    """Whether a new file is written or one of the same name: the last checkpoint stays whole."""
    QueryPoseCheckpointer(Tiny(1.0), str(tmp_path)).save("model_0000001")
    monkeypatch.setattr(target, deadly)
    in_dying_process(lambda: QueryPoseCheckpointer(Tiny(2.0), str(tmp_path)).save(name))
    monkeypatch.undo()

    model = Tiny(0.0)
    QueryPoseCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert model.weight.eq(1).all()

    # What the dead process left behind is in nobody's way.
    left_over = list(tmp_path.glob(".*.partial"))
    assert left_over
    saver = QueryPoseCheckpointer(Tiny(3.0), str(tmp_path))
    assert all(Path(path).suffix == ".pth" for path in saver.get_all_checkpoint_files())
    saver.save(name)
    QueryPoseCheckpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert model.weight.eq(3).all()
