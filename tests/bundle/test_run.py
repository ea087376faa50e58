"""The bundle's runner: tables, time limits and results."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """The runner as a module, whose project is an empty folder."""
    monkeypatch.syspath_prepend(str(repository / "bundle"))
    module = importlib.import_module("run")
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    yield module
    for name in ("run", "steps"):
        sys.modules.pop(name)


def steps_of(code: str, *more: str, processes: int = 1, seconds: float = 60):
    from steps import Alternatives, Step

    commands = [("-c", text) for text in (code, *more)]
    return Step("step", seconds, [Alternatives("a model", commands, processes)])


TABLE = """
print("Some words.")
print("| setting | images/s |")
print("|:---|---:|")
print("| batch 1 | 2.50 |")
"""


def test_tables_become_rows(run, tmp_path):
    done = run.run_step(steps_of(TABLE), 60, tmp_path)
    assert done["status"] == "passed" and done["tail"] == []
    assert done["rows"] == [{"what": "a model", "setting": "batch 1", "images/s": "2.50"}]
    run.write_results([done], tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == [done]
    text = (tmp_path / "results.md").read_text()
    assert "| what | setting | images/s |\n|---|---|---|\n| a model | batch 1 | 2.50 |" in text


def test_images_a_second_of_several_processes_add_up(run, tmp_path):
    (row,) = run.run_step(steps_of(TABLE, processes=2), 60, tmp_path)["rows"]
    assert row["images/s"] == "5.00"


def test_the_first_that_succeeds_counts(run, tmp_path):
    done = run.run_step(steps_of("raise MemoryError", TABLE), 60, tmp_path)
    assert done["status"] == "passed" and len(done["rows"]) == 1
    assert "MemoryError" in (tmp_path / "step.log").read_text()


def test_a_failure_leaves_its_last_lines(run, tmp_path):
    done = run.run_step(steps_of("raise SystemExit('No such card.')"), 60, tmp_path)
    assert done["status"] == "failed" and done["tail"] == ["No such card."]


def test_a_step_ends_when_its_time_is_up(run, tmp_path):
    # With what it started.
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', '%s'])"
    beat = "import time, pathlib\nwhile True: pathlib.Path(%r).touch(); time.sleep(0.02)"
    beaten = tmp_path / "beaten"
    code = child.replace("'%s'", repr(beat % str(beaten)))
    start = time.perf_counter()
    done = run.run_step(steps_of(code, TABLE), 3, tmp_path)
    assert done["status"] == "out of time" and done["rows"] == []
    assert time.perf_counter() - start < 20
    before = beaten.stat().st_mtime_ns
    time.sleep(0.2)
    assert beaten.stat().st_mtime_ns == before


def test_later_work_is_left_out(run, tmp_path):
    step = steps_of(TABLE)
    done = run.run_step(step._replace(work=[*step.work] * 2), -1, tmp_path)
    assert done["status"] == "out of time" and done["rows"] == []


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_commands_name_files_that_are_there(run, repository, device, small):
    from steps import Plan, steps

    plan = Plan(device, small, Path("/bundle"), Path("/results"))
    for step in steps(plan):
        assert step.seconds <= 240
        for work in step.work:
            for word in (word for command in work.commands for word in command):
                if word.startswith(("tests/", "configs/")) or word == "train_net.py":
                    assert (repository / word).is_file(), word


def test_a_failed_installation_is_not_taken_for_finished(run, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "broken-1.0-py3-none-any.whl").write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"run\.sh: the wheels cannot be installed: "):
            run.main(["--output", str(tmp_path / "results"), "--device", "cpu"])
    assert not (tmp_path / "site").exists()
