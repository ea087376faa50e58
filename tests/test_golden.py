"""Whole models against the numbers that the method's reference computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints

from querypose.checkpoint import QueryPoseCheckpointer, convert_released_state_dict
from querypose.config import read_config

MINI = (
    "MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 64 "
    "MODEL.QUERYPOSE.HIDDEN_DIM 64 MODEL.QUERYPOSE.NUM_ATTENTION_HEADS 4 "
    "MODEL.QUERYPOSE.FFN_DIM 128 MODEL.QUERYPOSE.DYNAMIC_DIM 16 MODEL.QUERYPOSE.PART_DIM 32 "
    "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS 2 MODEL.QUERYPOSE.NUM_QUERIES 12 "
    "MODEL.QUERYPOSE.NUM_STAGES 2"
)
MODELS = {
    "mini_light": ("querypose_r50_light_3x", MINI),
    "mini_full": ("querypose_r50_3x", MINI),
    "r50_light": ("querypose_r50_light_3x", "MODEL.QUERYPOSE.NUM_QUERIES 8"),
    "r50_full": ("querypose_r50_3x", "MODEL.QUERYPOSE.NUM_QUERIES 8"),
    "hrnet_w32_light": ("querypose_hrnet_w32_light_6x", "MODEL.QUERYPOSE.NUM_QUERIES 8"),
    "hrnet_w48_light": ("querypose_hrnet_w48_light_6x", "MODEL.QUERYPOSE.NUM_QUERIES 8"),
    "swin_t_light": ("querypose_swin_t_light_6x", "MODEL.QUERYPOSE.NUM_QUERIES 8"),
}
LOSSES = {
    "loss_ce": "loss_ce",
    "loss_bbox": "loss_bbox",
    "loss_giou": "loss_giou",
    "loss_keypoint": "loss_kps",
}


@pytest.fixture
def reference_model(golden, repository, tmp_path, device):
    """A golden model, its weights read from a file as a user would, and its reference."""

    def build(name: str):
        config, opts = MODELS[name]
        reference = golden(name)
        path = tmp_path / "released.pth"
        torch.save(reference.state_dict, path)
        cfg = read_config(repository / f"configs/coco/{config}.yaml", opts.split())
        cfg.MODEL.DEVICE = device
        model = build_model(cfg)
        QueryPoseCheckpointer(model).load(str(path))
        path.unlink()
        return model.eval(), reference

    return build


def assert_close(actual, expected, *, rtol=1e-3, atol):
    np.testing.assert_allclose(torch.as_tensor(actual).cpu(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", MODELS)
def test_inference_equals_the_reference(name, reference_model, prepare_with_winograd):
    model, reference = reference_model(name)
    _assert_inference(model, reference)
    prepare_with_winograd(model, too_small=name.startswith("mini"))
    _assert_inference(model, reference)


def _assert_inference(model, reference):
    inputs = [{"image": image} for image in reference.images]
    with torch.no_grad():
        _assert_stages(model, inputs, reference.arrays)
        for index, output in enumerate(model(inputs)):
            people = output["instances"]
            expected = {
                key: reference.arrays[f"eval_final{index}_{key}"]
                for key in ("scores", "boxes", "keypoints")
            }
            assert_close(people.scores, expected["scores"], atol=1e-6)
            assert_close(people.pred_boxes.tensor, expected["boxes"], atol=1e-3)
            assert_close(people.pred_keypoints, expected["keypoints"], atol=1e-3)


def _assert_stages(model, inputs, arrays):
    images = model.preprocess_images(inputs)
    features = model._features(images.tensor)
    states = model.decoder(features, images.image_sizes)
    every = [torch.arange(model.decoder.num_queries, device=model.device)] * len(inputs)
    keypoints = model.decoder.decode_keypoints(features, states, [every] * len(states))
    for stage, (state, points) in enumerate(zip(states, keypoints, strict=True)):
        shape = state.boxes.shape[:2]
        assert_close(state.logits, arrays["eval_logits"][stage], atol=1e-4)
        assert_close(state.boxes, arrays["eval_boxes"][stage], atol=1e-3)
        poses = torch.cat([points.coordinates, points.scores[..., None]], dim=-1)
        assert_close(poses.unflatten(0, shape), arrays["eval_keypoints"][stage], atol=1e-4)
        assert_close(points.sigmas.unflatten(0, shape), arrays["eval_sigmas"][stage], atol=1e-5)


@pytest.mark.parametrize("name", ["mini_light", "mini_full"])
def test_losses_and_gradients_equal_the_reference(name, reference_model):
    model, reference = reference_model(name)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    losses = model(
        [
            {"image": image, "instances": _people(reference.arrays, index, image)}
            for index, image in enumerate(reference.images)
        ]
    )
    assert len(losses) == 2 * len(LOSSES)
    for ours, theirs in LOSSES.items():
        for suffix in ("", "_0"):
            expected = reference.arrays[f"train_{theirs}{suffix}"]
            assert_close(losses[ours + suffix].detach(), expected, rtol=1e-4, atol=0)

    sum(losses.values()).backward()
    for released, norm in _gradient_norms(model, reference.state_dict).items():
        expected = reference.arrays.get(f"gradnorm_{released}")
        if expected is not None:
            assert_close(norm, expected, atol=0)


def _people(arrays, index, image) -> Instances:
    boxes = torch.from_numpy(arrays[f"gt{index}_boxes"])
    return Instances(
        tuple(image.shape[-2:]),
        gt_boxes=Boxes(boxes),
        gt_classes=torch.zeros(len(boxes), dtype=torch.long),
        gt_keypoints=Keypoints(arrays[f"gt{index}_keypoints"]),
    )


def _gradient_norms(model, released):
    """Norms of our gradients by released names.

    A tensor of serial numbers in place of each released one tells where the converter puts it.
    """
    offsets, start = {}, 0
    for name, value in released.items():
        offsets[name] = torch.arange(start, start + value.numel(), dtype=torch.float64)
        offsets[name] = offsets[name].view(value.shape)
        start += value.numel()
    squares = torch.zeros(start, dtype=torch.float64)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, serials in convert_released_state_dict(offsets).items():
        if name in gradients:
            squares[serials.long().flatten()] = gradients[name].cpu().double().square().flatten()
    return {
        name: squares[serials.long().flatten()].sum().sqrt().item()
        for name, serials in offsets.items()
    }
