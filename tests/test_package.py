"""What importing the package does."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Stands before an import and hides a module, as where it is not installed.
_HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
import querypose
"""


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ("detectron2", "querypose is a plugin of Detectron2, which is not installed here: "),
        # Detectron2 is there, but not what it needs itself.
        ("torch", "No module named 'torch'"),
    ],
)
def test_what_is_missing_is_named(hidden, message, repository):
    failed = subprocess.run(
        [sys.executable, "-c", _HIDE.format(name=hidden)],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f"ModuleNotFoundError: {message}")


def test_another_projects_datasets_stay_its_own(repository):
    code = """
from detectron2.data import DatasetCatalog
for name in ("crowdpose_val", "ochuman_test"):
    DatasetCatalog.register(name, lambda: ["theirs"])
import querypose
assert DatasetCatalog.get("crowdpose_val") == DatasetCatalog.get("ochuman_test") == ["theirs"]
assert "crowdpose_test" in DatasetCatalog and "ochuman_val" in DatasetCatalog
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
