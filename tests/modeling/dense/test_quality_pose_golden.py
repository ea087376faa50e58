"""CIR-QEM with HRNet-W32, from image to persons, against the numbers of plain loops."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from querypose.config import read_config


@pytest.fixture
def hrnet_model(quality, repository, dense_weights, device):
    """CIR-QEM with HRNet-W32 and the golden weights."""
    cfg = read_config(repository / "configs/coco/quality_pose_hrnet_w32.yaml")
    cfg.MODEL.DEVICE = device
    model = build_model(cfg).eval()
    weights = dense_weights("quality_w32", 335)
    backbone = {
        f"backbone.bottom_up.{name.removeprefix('backbone.')}": value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    head = {f"head.{name}": value for name, value in quality.head_state_dict(weights).items()}
    missing, unexpected = model.load_state_dict(backbone | head, strict=False)
    assert not unexpected and all("num_batches_tracked" in key for key in missing)
    return model


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("flip_test", [False, True])
def test_whole_model_finds_the_persons_of_the_reference(
    flip_test, prepared, hrnet_model, prepare_with_winograd, dense_arrays, rebuild, assert_close_to
):
    arrays = dense_arrays("quality_w32")
    hrnet_model.flip_test = flip_test
    if prepared:
        prepare_with_winograd(hrnet_model)
    (image,) = rebuild.images([(96, 128)], 335)
    with torch.no_grad():
        (output,) = hrnet_model([{"image": image, "return_maps": True}])
    view = "flip" if flip_test else "plain"
    persons, kept = output["instances"], arrays[f"{view}0_keep"]
    poses = arrays[f"{view}0_poses"][kept]
    assert_close_to(persons.pred_keypoints[..., :2], 4 * poses + 0.5)
    assert_close_to(persons.scores, arrays[f"{view}0_scores"][kept])
    scores = arrays["score"][0, 0]
    if flip_test:
        scores = (scores + arrays["score_mirrored"][0, 0, :, ::-1]) / 2
    assert_close_to(output["maps"]["score"], scores)


def test_whole_model_has_the_losses_and_gradients_of_the_reference(
    hrnet_model, quality, dense_arrays, rebuild
):
    arrays = dense_arrays("quality_w32")
    hrnet_model.train()
    for module in hrnet_model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    (image,) = rebuild.images([(96, 128)], 335)
    mask = torch.from_numpy(arrays["gt0_ignore"])
    given = {
        "image": image,
        "instances": quality.labeled_instances(arrays, 0),
        "ignore_mask": mask,
    }
    losses = hrnet_model([given])
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(arrays[name].item(), rel=2e-4)
    sum(losses.values()).backward()
    squares = {}
    for name, parameter in hrnet_model.named_parameters():
        group = name.removeprefix("head.")
        if name.startswith("backbone."):
            group = "backbone." + name.split(".")[2]
        squares[group] = squares.get(group, 0) + parameter.grad.double().square().sum().item()
    norms = {
        key.removeprefix("gradnorm_"): value.item()
        for key, value in arrays.items()
        if key.startswith("gradnorm_")
    }
    for name, norm in norms.items():
        group = name if name.startswith("backbone.") else quality.head_name(name)
        floor = 1e-4 * max(norms.values())
        assert abs(squares[group] ** 0.5 - norm) <= 2e-3 * max(norm, floor), name
