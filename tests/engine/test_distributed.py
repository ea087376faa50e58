"""Two processes under torchrun; see two_processes.py for what they do."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def folder(run_in_two_processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_processes")
    run_in_two_processes(SCRIPT, folder)
    return folder


def both(folder: Path, scenario: str) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{scenario}_{rank}.pth", weights_only=True) for rank in (0, 1)]


def assert_in_step(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["iteration"] == second["iteration"]
    for name, value in first["parameters"].items():
        assert torch.equal(value, second["parameters"][name]), name
        assert value.isfinite().all(), name


def test_two_processes_train_as_one_does(folder, tmp_path):
    first, second = both(folder, "same_global_batch")
    assert_in_step(first, second)
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    alone = script.same_global_batch(str(tmp_path))
    for name, value in alone["parameters"].items():
        torch.testing.assert_close(value, first["parameters"][name], rtol=1e-4, atol=2e-5)


def test_a_process_without_people(folder):
    first, second = both(folder, "one_process_without_people")
    assert_in_step(first, second)
    assert first["iteration"] == 3
    assert first["without_gradient"] == second["without_gradient"] == []


def test_processes_evaluate_the_same_statistics(folder):
    """Those that the first one saves, of the weights and of their average."""
    first, second = (
        result["evaluated_buffers"] for result in both(folder, "one_process_without_people")
    )
    assert {name.split(".")[0] for name in first if "running_mean" in name} == {"module", "average"}
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert different == []


def test_bad_numbers_of_one_process_are_skipped_and_reported_by_both(folder):
    first, second = both(folder, "bad_numbers_in_one_process")
    assert_in_step(first, second)
    assert first["skipped"] == second["skipped"] == 1
    assert first["message"] == second["message"]
    assert first["message"].startswith("Iteration 3: The matching cost is NaN")
    assert first["message"].count("synthetic://people/") == 2
    assert {path.name for path in (folder / "bad").glob("bad_batch*")} == {
        "bad_batch_1_rank1.pth",
        "bad_batch_3_rank1.pth",
    }


def test_sigterm_to_one_process_stops_both_after_the_same_iteration(folder):
    first, second = both(folder, "sigterm_to_one_process")
    assert_in_step(first, second)
    assert [(result["code"], result["iteration"]) for result in (first, second)] == [(0, 2)] * 2
    assert first["resumed"] == second["resumed"] == 3


def test_checkpoint_that_one_process_does_not_see(folder):
    for result in both(folder, "checkpoint_on_one_disk_only"):
        assert "would start at the iterations [3, 0]" in result["message"]


def test_batch_that_cannot_be_shared_out(folder):
    for result in both(folder, "uneven_batch"):
        assert "(3) must be a multiple of the number of processes (2)" in result["message"]


def test_what_the_main_process_says_or_raises(folder):
    for result in both(folder, "error_of_the_main_process"):
        assert result == {"said": "by 0", "message": f"Nothing is in {folder}."}
