from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.tools.export_weights import export_weights


@pytest.fixture
def checkpoint(small_model, tmp_path):
    model = small_model()
    average = {f"module.{name}": value + 1 for name, value in model.state_dict().items()}
    average["n_averaged"] = torch.tensor(7)
    content = {"model": model.state_dict(), "ema": average, "optimizer": {"state": {}}}
    path = tmp_path / "model_final.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("averaged", [False, True])
def test_exported_weights_load(checkpoint, small_model, tmp_path, averaged):
    output = tmp_path / "small.pth"
    export_weights(checkpoint, output, averaged=averaged)
    assert output.stat().st_size < 0.6 * checkpoint.stat().st_size / 2
    model, original = small_model(seed=1), small_model()
    QueryPoseCheckpointer(model).load(str(output))
    for name, value in original.state_dict().items():
        found = model.state_dict()[name]
        assert found.dtype == value.dtype
        torch.testing.assert_close(found, value + averaged, rtol=1e-3, atol=1e-4)


def test_values_too_large_for_half_precision_keep_their_type(tmp_path):
    weights = {"a": torch.tensor([1e6]), "b": torch.tensor([1.5]), "n": torch.tensor(70000)}
    torch.save({"model": weights}, tmp_path / "a.pth")
    export_weights(tmp_path / "a.pth", tmp_path / "b.pth", averaged=False)
    found = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    assert found["a"].dtype == torch.float32 and found["b"].dtype == torch.float16
    assert all(torch.equal(found[name].to(value), value) for name, value in weights.items())


def test_command_names_what_is_missing(checkpoint, tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "plain.pth")
    for path, message in ((tmp_path / "no.pth", "no.pth"), (tmp_path / "plain.pth", "'ema'")):
        command = [sys.executable, "-m", "querypose.tools.export_weights"]
        done = subprocess.run(
            [*command, str(path), str(tmp_path / "out.pth"), "--ema"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.pth").exists()
