from __future__ import annotations

import pytest
import torch
from torch import nn

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
HEATMAP = {"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True}
ANCHORS = {
    "MODEL.QUERYPOSE.ATTENTION_ANCHORS": True,
    "MODEL.QUERYPOSE.ATTENTION_WEIGHT": 1.0,
}
SIZE = (64, 96)


def _freeze_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@pytest.mark.parametrize("changes", [LIGHT, FULL, HEATMAP | ANCHORS, FULL | HEATMAP])
@pytest.mark.parametrize("people", [(0, 0), (2, 0), (3, 2)])
def test_every_parameter_gets_a_finite_gradient(changes, people, small_model, training_input):
    model = small_model(changes)
    batch = [training_input(count, SIZE, seed=i) for i, count in enumerate(people)]
    losses = model(batch)
    assert all(loss.isfinite() for loss in losses.values())
    assert ("loss_heatmap" in losses) == bool(model.heatmap_head)
    sum(losses.values()).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert [name for name, p in trained.items() if not p.grad.isfinite().all()] == []


def test_light_model_decodes_matched_queries_as_if_it_decoded_all(released_model, training_input):
    model = released_model().train()
    _freeze_batch_norm(model)
    # 64 x 96 pixels need no padding.
    batch = [training_input(3, SIZE), training_input(2, SIZE, seed=1)]
    decoded: list[int] = []
    hook = model.decoder.keypoint_stages[0].register_forward_hook(
        lambda _, inputs, output: decoded.append(len(inputs[0]))
    )
    losses = model(batch)
    hook.remove()
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)

    every_loss = _decoding_everything(model, batch)
    assert 5 <= decoded[0] < 24
    assert every_loss.keys() == losses.keys()
    for name, loss in every_loss.items():
        torch.testing.assert_close(losses[name], loss, rtol=1e-5, atol=1e-6)
    sum(every_loss.values()).backward()
    total_norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            difference = (gradients[name] - parameter.grad).norm()
            assert difference <= 1e-3 * parameter.grad.norm() + 1e-6 * total_norm, name


def _decoding_everything(model, batch):
    pixels = torch.stack([image_input["image"] for image_input in batch])
    features = model.backbone((pixels - model.pixel_mean) / model.pixel_std)
    states = model.decoder(features, [SIZE] * len(batch))
    targets = model._targets(batch)
    matches = model.criterion.match(states, targets)
    every = [[torch.arange(model.decoder.num_queries)] * len(batch)] * len(states)
    keypoints = model.decoder.decode_keypoints(features, states, every)
    return model.criterion(states, keypoints, every, matches, targets)


def test_full_model_decodes_all_queries(small_model, training_input):
    model = small_model(FULL)
    decoded: list[int] = []
    model.decoder.keypoint_stages[0].register_forward_hook(
        lambda _, inputs, output: decoded.append(len(inputs[0]))
    )
    model([training_input(1, SIZE), training_input(1, SIZE)])
    assert decoded == [24]


@pytest.mark.parametrize("changes", [LIGHT, FULL])
def test_half_precision_trains(changes, small_model, training_input):
    model = small_model(changes)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model([training_input(2, SIZE), training_input(0, SIZE)])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name


def test_another_keypoint_count_is_refused(small_model, training_input):
    given = training_input(1, SIZE, num_keypoints=14) | {"file_name": "photo"}
    with pytest.raises(ValueError, match="photo has 14 keypoints per person, the model has 17"):
        small_model()([given])
