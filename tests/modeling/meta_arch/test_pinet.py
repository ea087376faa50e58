from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances, Keypoints
from torch import nn

from querypose.config import read_config
from querypose.evaluation import KeypointEvaluator
from querypose.inference.acceleration import accelerate_inference
from querypose.modeling.dense.cells import map_size
from querypose.modeling.dense.flip import mirror_poses
from querypose.modeling.dense.part_head import PartMaps
from querypose.modeling.dense.part_targets import PartTargets
from querypose.modeling.meta_arch.pinet import PINet, View
from querypose.skeleton import COCO_SKELETON

LOSSES = {"loss_heatmap", "loss_offset", "loss_refine"}


@pytest.mark.parametrize(
    ("dataset", "count"),
    [("coco", 31_232_701), ("ochuman", 31_696_381), ("crowdpose", 31_683_301)],
)
def test_parameters_of_the_published_models(repository, dataset, count):
    cfg = read_config(repository / "configs" / dataset / "pinet_hrnet_w32.yaml")
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert list(model.parts()) == ["backbone", "head", "matching", "refinement"]


def freeze_batch_norms(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.eval()
    return model


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_every_parameter_learns(pinet, training_image):
    model = pinet()
    losses = model([training_image(2), training_image(1, seed=1)])
    assert losses.keys() == LOSSES
    assert all(loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    learning = {name for name, gradient in gradients(model).items() if gradient.any()}
    assert any(name.startswith("backbone.") for name in learning)
    # Batch norms cancel the biases before them.
    weights = {n for n, _ in model.named_parameters() if n.endswith(("weight", "adjacency"))}
    assert {name for name in weights - learning if not name.startswith("backbone.")} == set()


@pytest.mark.parametrize("counts", [(0,), (0, 0), (1, 0)])
def test_images_without_persons_touch_every_parameter(pinet, training_image, counts):
    model = pinet()
    losses = model([training_image(count, seed=i) for i, count in enumerate(counts)])
    assert losses.keys() == LOSSES
    assert torch.isfinite(sum(losses.values()))
    sum(losses.values()).backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert gradients(model).keys() == trained
    if not any(counts):
        assert losses["loss_offset"] == losses["loss_refine"] == 0


def test_one_pose_is_too_few_for_batch_norm(pinet, training_image):
    model = pinet("MODEL.PINET.CENTER_ONLY", True, "MODEL.PINET.NEAREST_CELLS", True)
    given = training_image(1)
    # Nearest to the center is the cell beyond the corner: of the nine about it, one is in the map.
    given["instances"].gt_keypoints.tensor[..., :2] = torch.tensor([127.9, 95.9])
    losses = model([given])
    assert losses["loss_refine"] == 0 and losses["loss_offset"] > 0
    losses["loss_refine"].backward()
    assert all(parameter.grad is not None for parameter in model.refinement.parameters())


def test_several_batches_train_as_one(pinet, training_image):
    batches = [
        [training_image(3), training_image(1, seed=1)],
        [training_image(0, seed=2), training_image(1, seed=3)],
    ]
    model = freeze_batch_norms(pinet())
    one_batch = [given for batch in batches for given in batch]
    sum(model(one_batch).values()).backward()
    expected = gradients(model)
    model.zero_grad()
    total = model.loss_normalizers(one_batch)
    assert total.keys() == LOSSES - {"loss_heatmap"}
    for batch in batches:
        own = model.loss_normalizers(batch)
        for name, loss in model(batch).items():
            share = own[name] / total[name] if name in own else len(batch) / len(one_batch)
            (loss * share).backward(retain_graph=True)
    assert gradients(model).keys() == expected.keys()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)


def test_two_processes_train_as_one(pinet, training_image, run_in_two_processes, tmp_path):
    """The second one has no persons."""
    script = Path(__file__).with_name("pinet_two_processes.py")
    model = freeze_batch_norms(pinet())
    batch = [training_image(2), training_image(1, seed=1), training_image(0), training_image(0)]
    torch.save({"model": model, "batch": batch}, tmp_path / "given.pth")
    run_in_two_processes(script, tmp_path)
    sum(model(batch).values()).backward()
    together = torch.load(tmp_path / "gradients.pth", weights_only=True)
    assert together.keys() == gradients(model).keys()
    for name, value in gradients(model).items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-6)


def test_a_persons_losses_do_not_depend_on_the_other_images(pinet, training_image):
    model = freeze_batch_norms(pinet())
    first, second = [training_image(2)], [training_image(1, seed=1)]
    with torch.no_grad():
        alone = [model(batch) for batch in (first, second)]
        counts = [model.loss_normalizers(batch) for batch in (first, second)]
        together = model(first + second)
    for name in ("loss_offset", "loss_refine"):
        weights = torch.stack([count[name] for count in counts])
        losses = torch.stack([losses[name] for losses in alone])
        expected = (losses * weights).sum() / weights.sum()
        torch.testing.assert_close(together[name], expected)


# A map in which two persons stand, as a trained head would draw it.
def drawn_view(model: PINet, persons: torch.Tensor, size: tuple[int, int]) -> View:
    """What an ideal head says of (n, K, 2) persons, in cells; one part each takes every cell."""
    (height, width), num_parts = size, len(model.target_builder.parts)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).float()
    parts = torch.zeros(1, num_parts, height, width)
    offsets = torch.zeros(1, num_parts, model.skeleton.num_keypoints, 2, height, width)
    nearest = torch.full((num_parts, height, width), torch.inf)
    for person in persons:
        for part, keypoints in enumerate(model.target_builder.parts):
            distance = (grid - person[list(keypoints)].mean(dim=0)).square().sum(dim=-1)
            parts[0, part] = torch.maximum(parts[0, part], torch.exp(-distance / 8))
            closer = distance < nearest[part]
            nearest[part] = torch.where(closer, distance, nearest[part])
            offset = person[:, :, None, None] - grid.permute(2, 0, 1)
            offsets[0, part] = torch.where(closer, offset, offsets[0, part])
    heatmaps = torch.ones(1, model.skeleton.num_keypoints, height, width)
    return View(torch.zeros(1, 1, height, width), PartMaps(heatmaps, parts, offsets.flatten(1, 3)))


@pytest.fixture
def without_refinement(pinet):
    return pinet("MODEL.PINET.REFINEMENT", False).eval()


def test_three_parts_propose_one_person(without_refinement):
    torch.manual_seed(0)
    person = 10 + 20 * torch.rand(1, 17, 2)
    view = drawn_view(without_refinement, person, (40, 48))
    (found,) = without_refinement._find_persons(view, None)
    assert len(found.poses) == 3 and found.persons.person_of_pose.tolist() == [0, 0, 0]
    assert 0.9 < found.persons.scores[0] <= 1
    torch.testing.assert_close(found.persons.keypoints[..., :2], person)


def test_two_persons_whose_bodies_share_a_center_are_two(without_refinement):
    """Their heads and legs are apart, as where one crouches behind the other."""
    person = torch.full((2, 17, 2), 24.0)
    person[:, :5, 0] += torch.tensor([[-12.0], [12.0]])
    person[:, :5, 1] -= 12
    person[:, [7, 8, 9, 10], 1] += torch.tensor([[-9.0], [9.0]])
    person[:, 13:, 0] += torch.tensor([[14.0], [-14.0]])
    person[:, 13:, 1] += 12
    view = drawn_view(without_refinement, person, (48, 48))
    (found,) = without_refinement._find_persons(view, None)
    keypoints = found.persons.keypoints
    assert len(keypoints) == 2
    order = keypoints[:, 0, 0].argsort()
    torch.testing.assert_close(keypoints[order, :, :2], person)


ARMS = [[f"{side}_{joint}" for joint in ("shoulder", "wrist")] for side in ("left", "right")]


@torch.no_grad()
def test_the_flip_test_exchanges_parts_of_one_side(pinet):
    """An ideal head sees the same person in both views."""
    model = pinet("MODEL.PINET.PARTS", ARMS, "MODEL.PINET.FLIP_TEST", True)
    model.refinement = None
    torch.manual_seed(0)
    person = 10 + 20 * torch.rand(1, 17, 2)
    mirrored = mirror_poses(person, model.skeleton.flip_indices, 48)
    view, mirrored_view = (drawn_view(model, pose, (40, 48)) for pose in (person, mirrored))
    _, parts = model._averaged_maps(view, mirrored_view)
    torch.testing.assert_close(parts, view.maps.parts)
    (found,) = model._find_persons(view, mirrored_view)
    assert found.poses.shape == (2, 17, 2)
    torch.testing.assert_close(found.poses, person.expand(2, -1, -1))


def test_a_part_without_a_mirror_image_has_no_flip_test(pinet):
    pinet("MODEL.PINET.PARTS", ARMS[:1], "MODEL.PINET.FLIP_TEST", False)
    with pytest.raises(ValueError, match=r"FLIP_TEST averages 'part 1'"):
        pinet("MODEL.PINET.PARTS", ARMS[:1], "MODEL.PINET.FLIP_TEST", True)


@torch.no_grad()
def test_an_image_alone_gives_what_it_gives_in_a_batch(pinet, training_image):
    model = pinet().eval()
    nn.init.normal_(model.head.parts.weight, std=0.1)
    nn.init.normal_(model.head.heatmaps.weight, std=0.1)
    images = [{"image": training_image(0, seed=i)["image"]} for i in range(3)]
    together = model(images)
    for given, expected in zip(images, together, strict=True):
        (alone,) = model([given])
        assert len(alone["instances"]) == len(expected["instances"]) > 0
        for field in ("pred_keypoints", "scores"):
            torch.testing.assert_close(
                alone["instances"].get(field),
                expected["instances"].get(field),
                atol=1e-3,
                rtol=1e-4,
            )


@torch.no_grad()
def test_nobody_is_found_where_no_peak_is(pinet, training_image):
    model = pinet().eval()
    nn.init.constant_(model.head.parts.bias, -1.0)
    (output,) = model([{"image": training_image(0)["image"]}])
    found = output["instances"]
    assert len(found) == 0 and found.pred_keypoints.shape == (0, 17, 3)
    assert found.pred_boxes.tensor.shape == (0, 4)


@torch.no_grad()
def test_persons_come_in_the_wanted_size_above_the_threshold(pinet, training_image):
    model = pinet().eval()
    nn.init.normal_(model.head.parts.weight, std=0.1)
    nn.init.normal_(model.head.heatmaps.weight, std=0.1)
    image = training_image(0)["image"]
    own, scaled = (
        model([{"image": image} | wanted])[0]["instances"]
        for wanted in ({}, {"height": 192, "width": 64})
    )
    assert scaled.image_size == (192, 64)
    factor = torch.tensor([0.5, 2.0, 1.0])
    torch.testing.assert_close(scaled.pred_keypoints, own.pred_keypoints * factor)
    places = scaled.pred_keypoints[..., :2]
    boxes = torch.cat([places.amin(dim=1), places.amax(dim=1)], dim=1)
    torch.testing.assert_close(scaled.pred_boxes.tensor, boxes)
    assert (own.scores.diff() <= 0).all()
    threshold = own.scores.median().item()
    fewer = model([{"image": image, "score_threshold": threshold}])[0]["instances"]
    assert len(fewer) == (own.scores >= threshold).sum() < len(own)


def test_half_precision_trains_and_predicts(pinet, training_image):
    model = pinet()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model([training_image(2), training_image(1, seed=1)])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    nn.init.normal_(model.head.parts.weight, std=0.1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.eval()([{"image": training_image(0)["image"]}])[0]["instances"]
    assert len(found) > 0 and found.pred_keypoints.dtype == torch.float32


@torch.no_grad()
def test_maps_and_proposals_come_on_request(pinet, training_image):
    model = pinet().eval()
    nn.init.normal_(model.head.parts.weight, std=0.1)
    nn.init.normal_(model.head.heatmaps.weight, std=0.1)
    image = training_image(0)["image"][:, :90, :120]
    asked = {"image": image, "return_maps": True, "height": 180, "width": 240}
    assert model([{"image": image}])[0].keys() == {"instances"}
    output = model([asked])[0]
    assert {name: part.shape for name, part in output["maps"].items()} == dict.fromkeys(
        ("upper", "middle", "bottom"), (23, 30)
    )
    persons, proposals = output["proposal_persons"], output["proposals"]
    assert proposals.shape == (len(persons), 17, 2)
    assert set(persons.tolist()) == set(range(len(output["instances"])))
    for index, keypoints in enumerate(output["instances"].pred_keypoints):
        own = proposals[persons == index]
        assert (own - keypoints[:, :2]).abs().amax(dim=-1).amin(dim=0).max() < 1e-2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("convolution", "named"),
    [("parts", "score maps"), ("heatmaps", "keypoints or"), ("offsets", "keypoints or")],
)
@torch.no_grad()
def test_a_diverged_head_is_an_error(convolution, named, bad, pinet, training_image):
    """One of its maps alone, whatever the others are."""
    model = pinet().eval()
    nn.init.normal_(model.head.parts.weight, std=0.1)
    given = [{"image": training_image(0)["image"]}]
    assert len(model(given)[0]["instances"]) > 0
    nn.init.constant_(getattr(model.head, convolution).bias, bad)
    with pytest.raises(FloatingPointError, match=f"{named}.* are NaN or infinite"):
        model(given)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("CENTER_ONLY", True),
        ("REFINEMENT", False),
        ("NUM_REFINEMENT_LAYERS", 0),
        ("FUSION", False),
        ("SORT_BY", "part_score"),
        ("NEAREST_CELLS", True),
        ("SAMPLER", "released"),
        ("FLIP_TEST", False),
        ("MAX_PEAKS", 3),
        ("PARTS", [["nose"], ["left_hip", "right_hip"]]),
    ],
)
def test_every_switch_trains_and_predicts(pinet, training_image, option, value):
    model = pinet(f"MODEL.PINET.{option}", value)
    losses = model([training_image(2), training_image(1, seed=1)])
    assert losses.keys() == LOSSES - ({"loss_refine"} if option == "REFINEMENT" else set())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    nn.init.normal_(model.head.parts.weight, std=0.1)
    with torch.no_grad():
        found = model.eval()([{"image": training_image(0)["image"]}])[0]["instances"]
    assert len(found) > 0 and found.pred_keypoints.isfinite().all()
    if option == "MAX_PEAKS":
        assert len(found) <= 3 * 3


@pytest.mark.parametrize(
    ("option", "value"), [("SAMPLER", "shifted"), ("SORT_BY", "score"), ("PARTS", [["tail"]])]
)
def test_senseless_options_are_named(pinet, option, value):
    with pytest.raises(ValueError, match=rf"MODEL\.PINET\.{option}"):
        pinet(f"MODEL.PINET.{option}", value)


def test_any_skeleton_trains_and_predicts(pinet, training_image, tmp_path):
    file = tmp_path / "skeleton.yaml"
    skeleton = {
        "keypoints": ["head", "left_hand", "right_hand", "left_foot", "right_foot"],
        "flips": [["left_hand", "right_hand"], ["left_foot", "right_foot"]],
        "edges": [["head", "left_hand"], ["head", "right_hand"]],
    }
    file.write_text(yaml.safe_dump(skeleton))
    model = pinet("MODEL.SKELETON", str(file))
    assert model.head.offsets.out_channels == 10
    assert model.refinement.adjacency[0, 1] > 0 == model.refinement.adjacency[1, 2]
    losses = model([training_image(2, num_keypoints=5)])
    sum(losses.values()).backward()
    nn.init.normal_(model.head.parts.weight, std=0.1)
    with torch.no_grad():
        found = model.eval()([{"image": training_image(0)["image"]}])[0]["instances"]
    assert found.pred_keypoints.shape[1:] == (5, 3)
    with pytest.raises(ValueError, match="The data have 17 keypoints per person, the model has 5"):
        model.train()([training_image(2)])


def test_what_depends_on_the_skeleton(pinet, tmp_path):
    file = tmp_path / "skeleton.yaml"
    file.write_text(yaml.safe_dump({"keypoints": ["a", "b", "c"]}))
    model, other = pinet(), pinet("MODEL.SKELETON", str(file))
    shapes, others = (
        {name: value.shape for name, value in m.state_dict().items()} for m in (model, other)
    )
    assert shapes.keys() == others.keys()
    assert {name for name in shapes if shapes[name] != others[name]} == {
        name for name in shapes if model.is_skeleton_dependent(name)
    }


@pytest.mark.parametrize(
    ("image_size", "network_size"),
    [((480, 640), (512, 704)), ((427, 640), (512, 768)), ((375, 500), (512, 704))],
)
def test_sizes_of_test_images(repository, pinet, image_size, network_size):
    cfg = read_config(repository / "configs" / "coco" / "pinet_hrnet_w32.yaml")
    (resize,) = detection_utils.build_augmentation(cfg, is_train=False)
    image = np.zeros((*image_size, 3), dtype=np.uint8)
    resized = resize.get_transform(image).apply_image(image).transpose(2, 0, 1)
    padded = pinet().preprocess_images([{"image": torch.from_numpy(resized.copy())}])
    assert padded.tensor.shape[-2:] == network_size


@torch.no_grad()
def test_faster_inference_changes_nothing(pinet_cfg, pinet, fill_batch_norms, training_image):
    model = fill_batch_norms(pinet()).eval()
    nn.init.normal_(model.head.parts.weight, std=0.1)
    nn.init.normal_(model.head.heatmaps.weight, std=0.1)
    images = [{"image": training_image(0)["image"]}]
    expected = model(images)[0]["instances"]
    found = accelerate_inference(model, pinet_cfg())(images)[0]["instances"]
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.pred_keypoints, expected.pred_keypoints, atol=1e-2, rtol=1e-3)


def test_ideal_maps_give_every_person(twenty_images, pinet):
    """Targets in place of the head's maps: every person comes back, though cells are 4 pixels."""
    model = pinet("MODEL.PINET.REFINEMENT", False, "DATASETS.TRAIN", f"('{twenty_images}',)")
    evaluator = KeypointEvaluator(
        twenty_images, tasks=("keypoints",), kpt_oks_sigmas=list(COCO_SKELETON.sigmas)
    )
    evaluator.reset()
    for record in DatasetCatalog.get(twenty_images):
        given = record | {"image": torch.zeros(3, record["height"], record["width"])}
        size = model.preprocess_images([given]).tensor.shape[-2:]
        given["instances"] = labeled_instances(record)
        targets = model._targets([given], map_size(size))
        (found,) = model._find_persons(ideal_view(model, targets), None)
        evaluator.process([record], [model._output(found, given)])
    assert evaluator.evaluate()["keypoints"]["AP"] > 99.9


def labeled_instances(record: dict) -> Instances:
    keypoints = torch.tensor([person["keypoints"] for person in record["annotations"]])
    areas = [person["bbox"][2] * person["bbox"][3] for person in record["annotations"]]
    return Instances(
        (record["height"], record["width"]),
        gt_keypoints=Keypoints(keypoints.view(-1, 17, 3)),
        gt_box_areas=torch.tensor(areas),
    )


def ideal_view(model: PINet, targets: PartTargets) -> View:
    """What a head says that has learned the targets of one image by heart."""
    heatmaps, parts = targets.maps.split([17, targets.maps.shape[1] - 17], dim=1)
    offsets = torch.zeros(1, parts.shape[1], 17, 2, *parts.shape[-2:])
    images, part, rows, columns = targets.cells
    offsets[images, part, :, :, rows, columns] = targets.offsets
    return View(
        torch.zeros(1, 1, *parts.shape[-2:]), PartMaps(heatmaps, parts, offsets.flatten(1, 3))
    )
