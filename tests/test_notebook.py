"""The notebook of the demo runs from its first cell to its last."""

from __future__ import annotations

import ast
import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ipykernel")
pytest.importorskip("skimage")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")


@pytest.fixture
def notebook(repository):
    return nbformat.read(repository / "demo" / "quickstart.ipynb", as_version=4)


def test_the_notebook_is_committed_without_outputs(notebook):
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("num_iterations", [2, pytest.param(300, marks=pytest.mark.slow)])
def test_the_notebook_runs(notebook, num_iterations, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.fspath(repository))
    training = next(cell for cell in notebook.cells if "NUM_ITERATIONS = 300" in cell.source)
    training.source = training.source.replace("= 300", f"= {num_iterations}")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=500, resources=resources).execute()

    results = [
        output["data"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output["output_type"] == "execute_result"
    ]
    images = [_decode(data["image/png"]) for data in results if "image/png" in data]
    photo, attention, sheet = images
    assert photo.shape == (512, 512, 3) and min(attention.shape[0], sheet.shape[0]) > 300
    texts = [data["text/plain"] for data in results if "image/png" not in data]
    assert texts[0] == "(1, 17, 3)"
    metrics = ast.literal_eval(texts[-1])
    assert set(metrics) >= {"AP", "AP50"}
    if num_iterations > 100:
        assert metrics["AP50"] > 10


def _decode(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
