from __future__ import annotations

import logging
import re

import pytest
import torch
import yaml

from querypose.checkpoint import ModelDescription, QueryPoseCheckpointer
from querypose.skeleton import Skeleton

CROWDPOSE = {"DATASETS.TRAIN": ("crowdpose_train",)}


@pytest.fixture
def five_keypoints(tmp_path) -> dict[str, str]:
    file = tmp_path / "skeleton.yaml"
    file.write_text(yaml.safe_dump({"keypoints": list("abcde")}))
    return {"MODEL.SKELETON": str(file)}


def _load(model, file, caplog) -> int:
    """Loads with new heads; returns the number of fresh tensors that the one warning reports."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="querypose.checkpoint"):
        QueryPoseCheckpointer(model, new_heads=True).load(file)
    found = [re.search(r"starts afresh \((\d+) tensors", line) for line in caplog.messages]
    assert len(found) <= 1
    return int(found[0][1]) if found else 0


@pytest.mark.parametrize("as_released", [True, False])
def test_trunk_loads_and_heads_start_afresh(
    as_released, five_keypoints, tiny_model, released, caplog, save, copy_weights
):
    source = tiny_model(seed=1)
    weights = released("mini_light")
    source.load_state_dict(weights)
    file = save(weights if as_released else source.state_dict())
    model = tiny_model(five_keypoints)
    before = copy_weights(model)
    logged = _load(model, file, caplog)
    dependent = [
        name
        for name in before
        if re.search(r"part_queries|heads\.|attention_conv|query_projection", name)
    ]
    assert logged == len(dependent)
    expected = source.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, (before if name in dependent else expected)[name]), name


def test_skeletons_of_equally_many_parts_share_their_parts(tiny_model, released, caplog, save):
    """CrowdPose has as many parts as COCO: only the heads differ."""
    file = save(released("mini_light"))
    model = tiny_model(CROWDPOSE)
    logged = _load(model, file, caplog)
    assert logged == 2 * 4


def test_the_same_skeleton_loads_completely(tiny_model, released, caplog, save, assert_weights):
    weights = released("mini_light")
    model, expected = tiny_model(), tiny_model(seed=1)
    expected.load_state_dict(weights)
    assert _load(model, save(weights), caplog) == 0
    assert_weights(model, expected.state_dict())


def test_the_trunk_must_fit_all_the_same(five_keypoints, tiny_model, released, save, caplog):
    weights = released("mini_light")
    del weights["init_proposal_features.weight"]
    checkpointer = QueryPoseCheckpointer(tiny_model(five_keypoints), new_heads=True)
    with pytest.raises(ValueError, match=r"decoder\.queries\.weight is missing"):
        checkpointer.load(save(weights))
    # Nothing is said to start afresh in a file that is refused.
    assert "afresh" not in caplog.text


@pytest.mark.parametrize("as_released", [True, False])
def test_another_skeleton_is_refused_without_new_heads(
    as_released, five_keypoints, tiny_model, released, save
):
    weights = released("mini_light") if as_released else tiny_model().state_dict()
    file = save(weights)
    with pytest.raises(ValueError, match=r"heads\.\S+ is \(17, 2\) instead of \(5, 2\)"):
        QueryPoseCheckpointer(tiny_model(five_keypoints)).load(file)


def test_crowdpose_weights_are_refused_by_a_coco_model(tiny_model, save):
    file = save(tiny_model(CROWDPOSE).state_dict())
    with pytest.raises(ValueError, match=r"heads\.\S+ is \(14, 2[\d, ]*\) instead of \(17, 2"):
        QueryPoseCheckpointer(tiny_model()).load(file)


@pytest.mark.parametrize("order", ["abcde", "abced", "vwxyz"])
def test_other_names_of_as_many_keypoints_are_told(order, tiny_model, tmp_path, caplog):
    trained = Skeleton(tuple("abcde"))
    model = tiny_model({"MODEL.SKELETON": trained.to_yaml()})
    description = ModelDescription("{}", trained)
    QueryPoseCheckpointer(model, str(tmp_path), description=description).save("model")
    other = tiny_model({"MODEL.SKELETON": Skeleton(tuple(order)).to_yaml()}, seed=1)
    with caplog.at_level(logging.WARNING, logger="querypose.checkpoint"):
        QueryPoseCheckpointer(other, new_heads=True).load(str(tmp_path / "model.pth"))
    told = f"here, in their places, are {list(order)}" in caplog.text
    assert told == (order != "abcde")
