from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer


def _without_heatmap_head(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in model.state_dict().items():
        if not name.startswith("heatmap_head."):
            yield name, value


def test_another_width_is_one_error_with_both_shapes(tiny_model, released, save):
    narrow = {"MODEL.QUERYPOSE.HIDDEN_DIM": 32, "MODEL.FPN.OUT_CHANNELS": 32}
    file = save(released("mini_light"))
    with pytest.raises(ValueError, match=r"\S+ is \([\d, ]+\) instead of \([\d, ]+\)") as error:
        QueryPoseCheckpointer(tiny_model(narrow)).load(file)
    message = str(error.value)
    assert file in message
    assert "config that the file was trained with" in message
    assert "\n" not in message
    assert len(message) < 1000


def test_a_failed_load_changes_no_weight(small_model, save, copy_weights, assert_weights):
    model = small_model()
    weights = small_model(seed=1).state_dict()
    weights["decoder.queries.weight"] = torch.zeros(3, 16)
    before = copy_weights(model)
    with pytest.raises(ValueError, match=r"decoder\.queries\.weight is \(3, 16\) instead of"):
        QueryPoseCheckpointer(model).load(save(weights))
    assert_weights(model, before)


def test_a_missing_tensor_is_named(small_model, save, copy_weights):
    model = small_model()
    weights = copy_weights(model)
    del weights["decoder.queries.weight"]
    with pytest.raises(ValueError, match=r"\(1 tensors\): decoder\.queries\.weight is missing"):
        QueryPoseCheckpointer(model).load(save(weights))


def test_prediction_does_without_the_auxiliary_head(small_model, save):
    trained = small_model({"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True})
    path = save({"model": trained.state_dict()})
    model = small_model()
    QueryPoseCheckpointer(model).load(path)
    torch.testing.assert_close(model.state_dict(), dict(_without_heatmap_head(trained)))


def test_an_unexpected_tensor_is_named(small_model, save, copy_weights):
    model = small_model()
    weights = copy_weights(model) | {"decoder.strange": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"decoder\.strange is not expected"):
        QueryPoseCheckpointer(model).load(save(weights))


def test_many_problems_are_cut_short(small_model, save):
    with pytest.raises(ValueError, match=r"\(\d{3} tensors\): .*; \.\.\."):
        QueryPoseCheckpointer(small_model()).load(save({"a": torch.zeros(1)}))


def test_a_checkpointer_works_on_after_a_refusal(small_model, save, assert_weights):
    model = small_model()
    checkpointer = QueryPoseCheckpointer(model)
    with pytest.raises(ValueError, match="not fit"):
        checkpointer.load(save({"a": torch.zeros(1)}, "bad.pth"))
    expected = small_model(seed=1).state_dict()
    checkpointer.load(save(expected))
    assert_weights(model, expected)
