from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer


def test_round_trip(small_model, tmp_path, assert_weights):
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    checkpointer = QueryPoseCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model_0000007", iteration=7)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000007.pth"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000007.pth",
    ]

    fresh = small_model(seed=1)
    other = torch.optim.SGD(fresh.parameters(), lr=0.5)
    again = QueryPoseCheckpointer(fresh, str(tmp_path), optimizer=other)
    extras = again.resume_or_load("elsewhere.pth", resume=True)
    assert extras["iteration"] == 7
    assert other.param_groups[0]["lr"] == 0.25
    assert_weights(fresh, model.state_dict())


def test_without_a_last_checkpoint_the_given_file_loads(
    small_model, tmp_path, save, assert_weights
):
    model, fresh = small_model(), small_model(seed=1)
    file = save({"model": model.state_dict(), "iteration": 3})
    checkpointer = QueryPoseCheckpointer(fresh, str(tmp_path / "new"))
    checkpointer.resume_or_load(file, resume=True)
    assert_weights(fresh, model.state_dict())


def test_no_file_leaves_the_fresh_model(small_model, copy_weights, assert_weights):
    model = small_model()
    before = copy_weights(model)
    assert QueryPoseCheckpointer(model).load("") == {}
    assert_weights(model, before)


def test_an_interrupted_save_leaves_the_previous_file_whole(
    small_model, tmp_path, copy_weights, assert_weights
):
    model = small_model()
    checkpointer = QueryPoseCheckpointer(model, str(tmp_path))
    checkpointer.save("model")
    expected = copy_weights(model)
    nn.init.zeros_(model.decoder.queries.weight)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpointer.save("model", broken=lambda: None)
    fresh = small_model(seed=1)
    QueryPoseCheckpointer(fresh, str(tmp_path)).resume_or_load("", resume=True)
    assert_weights(fresh, expected)


def test_safetensors(small_model, tmp_path, assert_weights):
    model, fresh = small_model(), small_model(seed=1)
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    QueryPoseCheckpointer(fresh).load(str(file))
    assert_weights(fresh, model.state_dict())


def test_auxiliary_heat_maps_may_be_missing(small_model, save):
    file = save({"model": small_model().state_dict()})
    model = small_model({"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True}, seed=1)
    QueryPoseCheckpointer(model).load(file)
    assert torch.equal(model.decoder.queries.weight, small_model().decoder.queries.weight)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]
)
def test_names_of_compiled_and_distributed_models(small_model, save, assert_weights, prefix):
    model, fresh = small_model(), small_model(seed=1)
    file = save({prefix + name: value for name, value in model.state_dict().items()})
    QueryPoseCheckpointer(fresh).load(file)
    assert_weights(fresh, model.state_dict())
