from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.deepening import deepen_keypoint_convs
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


def test_two_trainings_are_averaged(checkpoint, small_model, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"model": small_model(seed=1).state_dict()}, other)
    export_weights(checkpoint, tmp_path / "out.pth", averaged=True, average_with=other)
    found = torch.load(tmp_path / "out.pth", weights_only=True)["model"]
    first, second = small_model().state_dict(), small_model(seed=1).state_dict()
    assert found.keys() == first.keys()
    for name, value in first.items():
        expected = (value + 1 + second[name]) / 2 if value.is_floating_point() else value + 1
        torch.testing.assert_close(found[name].to(value.dtype), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "other", [{"a": torch.zeros(3)}, {"a": torch.zeros(2), "b": torch.zeros(1)}]
)
def test_weights_of_two_models_are_not_averaged(tmp_path, other):
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "one.pth")
    torch.save({"model": other}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"two different models .* differ in [ab]\."):
        export_weights(
            tmp_path / "one.pth",
            tmp_path / "out.pth",
            averaged=False,
            average_with=tmp_path / "other.pth",
        )


def test_numbers_too_large_for_half_precision_stay(tmp_path):
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


@pytest.mark.parametrize("shallow", [2, 3])
def test_a_deepened_model_computes_what_it_did(tmp_path, small_model, shallow):
    key = "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS"
    torch.save({"model": small_model({key: shallow}).state_dict()}, tmp_path / "model.pth")
    given = [{"image": 255 * torch.rand(3, 64, 96, generator=torch.manual_seed(2))}]
    people = []
    for num_convs, wanted in ((shallow, None), (5, 5)):
        output = tmp_path / f"{num_convs}.pth"
        export_weights(tmp_path / "model.pth", output, averaged=False, keypoint_convs=wanted)
        model = small_model({key: num_convs}, seed=1).eval()
        QueryPoseCheckpointer(model).load(str(output))
        with torch.no_grad():
            people.append(model(given)[0]["instances"])
    expected, found = people
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.pred_keypoints, expected.pred_keypoints)


@pytest.mark.parametrize(("present", "wanted"), [(2, 2), (3, 2), (1, 4)])
def test_only_more_convolutions_than_there_are(small_model, present, wanted):
    weights = small_model({"MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS": present}).state_dict()
    message = f"{present} keypoint convolutions cannot become {wanted}"
    with pytest.raises(ValueError, match=message):
        deepen_keypoint_convs(weights, wanted)


def test_weights_without_a_keypoint_decoder_cannot_be_deepened():
    with pytest.raises(ValueError, match="no keypoint convolutions"):
        deepen_keypoint_convs({"backbone.weight": torch.zeros(1)}, 4)
