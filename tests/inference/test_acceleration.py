"""Accelerated models give the same predictions."""

from __future__ import annotations

import copy

import pytest
import torch

from querypose.inference.acceleration import accelerate_inference


@pytest.fixture
def trained(tiny_model, fill_batch_norms):
    return fill_batch_norms(tiny_model().eval())


@pytest.fixture
def image():
    torch.manual_seed(1)
    return {"image": 255 * torch.rand(3, 96, 128)}


@pytest.mark.parametrize("option", ["FOLD_BATCH_NORM", "CHANNELS_LAST"], ids=str.lower)
def test_exact_options_do_not_change_predictions(option, trained, image, tiny_cfg):
    with torch.no_grad():
        expected = trained([image])[0]["instances"]
    cfg = tiny_cfg()
    cfg.MODEL.INFERENCE[option] = True
    fast = accelerate_inference(copy.deepcopy(trained), cfg)
    with torch.no_grad():
        actual = fast([image])[0]["instances"]
    torch.testing.assert_close(actual.scores, expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual.pred_keypoints, expected.pred_keypoints, rtol=1e-4, atol=1e-3)


def test_bfloat16_keeps_outputs_in_float32(trained, image, tiny_cfg):
    """Also where the processor only emulates the type."""
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        people = trained([image])[0]["instances"]
    assert people.scores.dtype == people.pred_keypoints.dtype == torch.float32
    assert torch.isfinite(people.pred_keypoints).all()


def test_checkpointed_keypoint_convolutions_give_the_same_gradients(tiny_model, training_input):
    inputs = [training_input(2, (96, 128))]
    gradients = []
    for recompute in (False, True):
        model = tiny_model().train()
        for stage in model.decoder.keypoint_stages:
            stage.checkpoint_convs = recompute
        sum(model(inputs).values()).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)
