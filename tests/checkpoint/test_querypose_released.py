from __future__ import annotations

import re

import pytest
import torch

from querypose.checkpoint import (
    QueryPoseCheckpointer,
    convert_released_state_dict,
    is_released_state_dict,
)
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
GOLDEN = [("mini_light", LIGHT), ("mini_full", FULL)]


@pytest.mark.parametrize(("name", "changes"), GOLDEN)
@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights}])
def test_a_saved_file_loads_completely(
    name, changes, wrap, tiny_model, released, save, copy_weights
):
    weights = released(name)
    model = tiny_model(changes)
    before = copy_weights(model)
    QueryPoseCheckpointer(model).load(save(wrap(weights)))
    _assert_from_file(model, before, weights)


@pytest.mark.parametrize(("name", "changes"), GOLDEN)
def test_plain_load_state_dict_reads_it(name, changes, tiny_model, released, copy_weights):
    weights = released(name)
    model = tiny_model(changes)
    before = copy_weights(model)
    assert str(model.load_state_dict(weights)) == "<All keys matched successfully>"
    _assert_from_file(model, before, weights)


def _assert_from_file(model, before, weights):
    ours = model.state_dict()
    untouched = [name for name in ours if torch.equal(ours[name], before[name])]
    # An initialized model already has the values of these tensors.
    assert all(name.endswith(("num_batches_tracked", "flow.masks")) for name in untouched)
    assert torch.equal(
        ours["decoder.box_stages.1.box_branch.3.weight"],
        weights["head.head_series.1.reg_module.3.weight"],
    )
    stage, released = "decoder.keypoint_stages.1.", "head.pose_head_series.1."
    assert torch.equal(
        ours[f"{stage}selective_iteration.gates.bias"], weights[f"{released}updater.fc2.bias"]
    )
    assert torch.equal(
        ours[f"{stage}part_embedding.query_projection.weight"][2 * 32 : 3 * 32],
        weights[f"{released}residual_filter.2.weight"],
    )
    for part, keypoints in enumerate(COCO_SKELETON.part_indices):
        for place, keypoint in enumerate(keypoints):
            rows = slice(2 * place, 2 * place + 2)
            for role, head in (("coordinate", "fc_coord"), ("sigma", "fc_sigma")):
                for kind in ("weight", "bias"):
                    expected = weights[f"{released}{head}.{part}.linear.{kind}"][rows]
                    actual = ours[f"{stage}heads.{role}_{kind}"][keypoint]
                    assert torch.equal(actual, expected)


@pytest.mark.parametrize("with_parts", [False, True])
def test_heads_of_another_skeleton_come_in_its_keypoint_order(with_parts):
    """CrowdPose's heads begin with the head, its keypoints with the shoulders."""
    parts = CROWDPOSE_SKELETON.part_indices
    weights = {
        f"head.pose_head_series.3.fc_coord.{part}.linear.bias": torch.tensor(
            [number for keypoint in keypoints for number in (keypoint, keypoint + 0.5)]
        )
        for part, keypoints in enumerate(parts)
    }
    converted = convert_released_state_dict(weights, parts if with_parts else None)
    (bias,) = converted.values()
    assert list(converted) == ["decoder.keypoint_stages.3.heads.coordinate_bias"]
    assert bias.tolist() == [[keypoint, keypoint + 0.5] for keypoint in range(14)]


def test_tensors_that_its_model_never_reads_are_dropped(released):
    weights = released("mini_light")
    unused = [
        "head.pose_head_series.0.updater.fc3.weight",
        "head.pose_head_series.1.updater.norm_fc3.bias",
        "backbone.fpn_conv.4.weight",
        "backbone.lateral_conv.0.weight",
    ]
    extended = weights | dict.fromkeys(unused, torch.zeros(1))
    converted = convert_released_state_dict(extended)
    assert converted.keys() == convert_released_state_dict(weights).keys()
    assert not any("fc3" in name or "fpn_conv.4" in name for name in converted)


def test_an_unknown_tensor_is_named(released):
    weights = released("mini_light")
    for name in ("head.strange.weight", "head.head_series.0.strange.weight", "strange"):
        with pytest.raises(ValueError, match=rf"holds '{name}', which no released"):
            convert_released_state_dict(weights | {name: torch.zeros(1)})


def test_parts_of_no_known_skeleton_must_be_passed(released):
    weights = released("mini_light")
    for name in list(weights):
        if re.search(r"fc_(coord|sigma)\.6\.", name):
            del weights[name]
    with pytest.raises(
        ValueError, match=r"parts have \[5, 2, 2, 2, 2, 2\] keypoints, which are neither"
    ):
        convert_released_state_dict(weights, COCO_SKELETON.part_indices)
    parts = COCO_SKELETON.part_indices[:-1]
    assert convert_released_state_dict(weights, parts)


def test_our_own_names_are_not_taken_for_released_ones(tiny_model, released):
    assert is_released_state_dict(released("mini_light"))
    assert not is_released_state_dict(tiny_model().state_dict())


def test_a_file_saved_from_parallel_training_loads(tiny_model, released, save, assert_weights):
    weights = released("mini_light")
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    model, expected = tiny_model(), tiny_model(seed=1)
    expected.load_state_dict(weights)
    QueryPoseCheckpointer(model).load(save(wrapped))
    assert_weights(model, expected.state_dict())


def test_the_other_kind_of_model_is_refused(tiny_model, released, save):
    full = save(released("mini_full"), "full.pth")
    with pytest.raises(ValueError, match=r"feedback\.\S+ is not expected"):
        QueryPoseCheckpointer(tiny_model()).load(full)
    light = save(released("mini_light"), "light.pth")
    with pytest.raises(ValueError, match=r"feedback\.\S+ is missing"):
        QueryPoseCheckpointer(tiny_model(FULL)).load(light)
