"""PINet as a whole, by its configs and from published files, against its reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances, Keypoints

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.checkpoint.pinet_released import convert_pinet_state_dict
from querypose.config import read_config
from querypose.modeling.dense.cells import cells_to_pixels
from querypose.modeling.dense.flip import average_maps, mirror_images
from querypose.modeling.dense.fusion import score_keypoints

INFERENCE = {
    "pinet_coco": ("coco", 111, [(128, 160), (128, 160)]),
    "pinet_crowdpose": ("crowdpose", 64, [(96, 128), (80, 112)]),
}
TRAINING = {
    "pinet_train": ("coco", "pinet_coco", 200, [(128, 128)] * 3),
    "pinet_train_crowdpose": ("crowdpose", "pinet_crowdpose", 213, [(96, 96)]),
}


@pytest.fixture
def published_model(repository, dense_weights, tmp_path, device):
    """``published_model("coco", "pinet_coco", 111)``: read from a file as a user would."""

    def build(dataset: str, shapes: str, seed: int):
        path = tmp_path / "published.pth"
        torch.save(dense_weights(shapes, seed), path)
        cfg = read_config(repository / "configs" / dataset / "pinet_hrnet_w32.yaml")
        cfg.MODEL.DEVICE = device
        model = build_model(cfg)
        QueryPoseCheckpointer(model).load(str(path))
        path.unlink()
        return model

    return build


@pytest.mark.parametrize("prepared", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_inference_equals_the_reference(
    name, prepared, published_model, prepare_with_winograd, rebuild, dense_arrays, assert_close_to
):
    dataset, seed, sizes = INFERENCE[name]
    model = published_model(dataset, name, seed).eval()
    if prepared:
        prepare_with_winograd(model)
    arrays, images = dense_arrays(name), rebuild.images(sizes, seed)
    batch = model.preprocess_images([{"image": image} for image in images]).tensor
    view, mirrored = model._look_at(batch), model._look_at(mirror_images(batch))
    assert_close_to(view.features[:, ::40], arrays["R_g_every40"])
    assert_close_to(view.maps.heatmaps, arrays["H"])
    assert_close_to(view.maps.parts, arrays["P"])
    assert_close_to(view.maps.offsets[:, :, ::4, ::4], arrays["O_sub"])
    for kind, other in (("plain", None), ("flip", mirrored)):
        for sampler in ("exact", "released"):
            model.refinement.sampler = sampler
            _assert_poses(model, view, other, arrays, f"{kind}_{sampler}", assert_close_to)


def _assert_poses(model, view, mirrored, arrays, prefix, assert_close_to):
    kind = prefix.partition("_")[0]
    heatmaps, part_maps = view.maps.heatmaps, view.maps.parts
    if mirrored is not None:
        heatmaps = average_maps(heatmaps, mirrored.maps.heatmaps, model.skeleton.flip_indices)
        part_maps = average_maps(part_maps, mirrored.maps.parts)
    cells = model._peaks(part_maps)
    poses = model._averaged_poses(view, mirrored, cells)
    refinement, model.refinement = model.refinement, None
    coarse = model._averaged_poses(view, mirrored, cells)
    model.refinement = refinement
    part_scores = cells.read_parts(part_maps)
    places = torch.stack([cells.parts, cells.rows, cells.columns], dim=1)
    for i, found in enumerate(model._find_persons(view, mirrored)):
        own = (cells.images == i).nonzero().flatten()
        row_of = {tuple(place): row for place, row in zip(places[own].tolist(), own, strict=True)}
        expected = [tuple(place) for place in arrays[f"{kind}{i}_cells"].tolist()]
        assert set(row_of) == set(expected)
        rows = torch.stack([row_of[place] for place in expected])
        assert_close_to(part_scores[rows], arrays[f"{kind}{i}_r_p"])
        assert_close_to(coarse[rows], arrays[f"{kind}{i}_coarse"])
        assert_close_to(poses[rows], arrays[f"{prefix}{i}_refined"])
        keypoint_scores = score_keypoints(heatmaps[i], poses[rows], part_scores[rows])
        assert_close_to(keypoint_scores, arrays[f"{prefix}{i}_joint_scores"])
        _assert_fused(found.persons, arrays, f"{prefix}{i}", assert_close_to)


def _assert_fused(persons, arrays, prefix, assert_close_to):
    keypoints, scores, _ = persons
    expected = torch.from_numpy(arrays[f"{prefix}_fused"]).to(keypoints.device)
    keypoints = torch.cat([cells_to_pixels(keypoints[..., :2]), keypoints[..., 2:]], dim=-1)
    distances = torch.cdist(expected[..., :2].flatten(1), keypoints[..., :2].flatten(1))
    nearest = distances.argmin(dim=1)
    assert sorted(nearest.tolist()) == list(range(len(keypoints)))
    assert_close_to(keypoints[nearest], expected.cpu(), 1e-3)
    assert_close_to(scores[nearest], arrays[f"{prefix}_fused_scores"], 1e-3)


@pytest.fixture
def one_thread():
    """Several sum up in another order, which batch norms over few cells make visible."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("pinet_train_crowdpose", "bn_train"),
        *(
            pytest.param(name, mode, marks=pytest.mark.slow)
            for name in TRAINING
            for mode in ("bn_eval", "bn_eval_released", "bn_train")
            if (name, mode) != ("pinet_train_crowdpose", "bn_train")
        ),
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_losses_and_gradients_equal_the_reference(
    name, mode, published_model, rebuild, dense_arrays
):
    dataset, shapes, seed, sizes = TRAINING[name]
    arrays = dense_arrays(name)
    model = published_model(dataset, shapes, seed).train()
    if mode != "bn_train":
        for module in model.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.eval()
    if mode.endswith("released"):
        model.refinement.sampler = "released"
    losses = model(_inputs(rebuild.images(sizes, seed), arrays))
    for loss in ("heatmap", "offset", "refine"):
        expected = arrays[f"{mode}_loss_{loss}"]
        np.testing.assert_allclose(losses[f"loss_{loss}"].item(), expected, rtol=2e-4)
    tolerance = 5e-3 if mode == "bn_train" else 2e-3
    for group, loss in (("refine", losses["loss_refine"]), ("total", sum(losses.values()))):
        model.zero_grad()
        loss.backward(retain_graph=group == "refine")
        _assert_gradients(model, arrays, f"{mode}_gradnorm_{group}_", tolerance)


def _inputs(images, arrays):
    return [
        {
            "image": image,
            "ignore_mask": torch.from_numpy(arrays[f"gt{i}_ignore"]),
            "instances": Instances(
                tuple(image.shape[1:]),
                gt_keypoints=Keypoints(arrays[f"gt{i}_keypoints"]),
                gt_box_areas=torch.from_numpy(arrays[f"gt{i}_box_area"]),
            ),
        }
        for i, image in enumerate(images)
    ]


def _assert_gradients(model, arrays, prefix, tolerance):
    expected = {
        key.removeprefix(prefix): float(value)
        for key, value in arrays.items()
        if key.startswith(prefix)
    }
    # Of the backbone, norms over its top modules are known.
    ours = {_our_name(name): name for name in expected}
    squares = dict.fromkeys(expected, 0.0)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            key = ".".join(name.split(".")[:3]) if name.startswith("backbone.") else name
            squares[ours[key]] += parameter.grad.double().square().sum().item()
    floor = 1e-4 * max(expected.values())
    for name, norm in expected.items():
        assert abs(squares[name] ** 0.5 - norm) <= tolerance * max(norm, floor), name


def _our_name(published):
    return next(iter(convert_pinet_state_dict({published: torch.zeros(1)})))
