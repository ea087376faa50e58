import runpy
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, Keypoints
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from querypose.config import read_config
from querypose.inference.batch_norm_folding import fold_batch_norms
from querypose.modeling.dense.flip import mirror_images

_SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_timm_concat_backbone",
    "MODEL.TIMM.NAME": "mobilenetv3_small_050",
    "MODEL.QUALITY_POSE.KEYPOINT_CHANNELS": 4,
    "MODEL.QUALITY_POSE.INSTANCE_CHANNELS": 8,
    "MODEL.QUALITY_POSE.SCORE_CHANNELS": 4,
    "MODEL.QUALITY_POSE.MIN_AREA": 0.0,
}

SWITCHES = [
    {},
    {"KQE": False, "PQE": False, "INSTANCE_LABEL": "gaussian"},
    {"PQE": False},
    {"INSTANCE_LABEL": "discrete", "QUALITY_BRANCH": True},
    {"NUM_SEMANTIC_POINTS": 0},
    {"AGGREGATE": "deform"},
    {"POSE_QUERY": "auto"},
    {"POSE_QUERY": "sp"},
    {"POSE_QUERY": "kps"},
    {"LOSS.CIR_REDUCTION": "pixel"},
]


@pytest.fixture
def small_model(repository):
    """``small_model({"KQE": False})``: a seeded model whose untrained head finds persons."""

    def build(switches=None, changes=None):
        torch.manual_seed(0)
        switches = {f"MODEL.QUALITY_POSE.{key}": value for key, value in (switches or {}).items()}
        options = _SMALL | switches | (changes or {})
        cfg = read_config(
            repository / "configs/coco/quality_pose_hrnet_w32.yaml",
            [item for pair in options.items() for item in pair],
        )
        model = build_model(cfg)
        for name, parameter in model.head.named_parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)
            if name.startswith(("score_branch.score.", "score_branch.quality.")):
                nn.init.constant_(parameter, 0.2)
        return model

    return build


def labeled(num_persons, num_keypoints=17, size=(96, 128), seed=0):
    """An image with persons about its center."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(num_persons, num_keypoints, 2, generator=generator) * 60 + 15
    keypoints = torch.cat([places, torch.full_like(places[..., :1], 2)], dim=-1)
    instances = Instances(
        size,
        gt_boxes=Boxes(torch.tensor([[10.0, 10, 80, 80]] * num_persons).view(-1, 4)),
        gt_classes=torch.zeros(num_persons, dtype=torch.long),
        gt_keypoints=Keypoints(keypoints),
        gt_areas=torch.full((num_persons,), 2000.0),
    )
    image = torch.rand(3, *size, generator=generator) * 255
    mask = torch.ones(size[0] // 4, size[1] // 4)
    return {"image": image, "instances": instances, "ignore_mask": mask}


def batch_norms_fixed(model):
    """In training, but with batch norms that see each image alone."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


class TestTraining:
    @pytest.mark.parametrize("switches", SWITCHES)
    @pytest.mark.parametrize("persons", [(2, 0), (0, 0)])
    def test_every_parameter_gets_a_gradient(self, switches, persons, small_model):
        model = small_model(switches)
        losses = model([labeled(count, seed=i) for i, count in enumerate(persons)])
        names = {"loss_cir", "loss_displacement"}
        assert set(losses) == names | ({"loss_quality"} if "QUALITY_BRANCH" in switches else set())
        assert all(torch.isfinite(loss) for loss in losses.values())
        if not any(persons):
            assert losses["loss_displacement"] == 0
        sum(losses.values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name

    @pytest.mark.parametrize("reduction", ["omega", "pixel"])
    def test_small_batches_train_as_one_large_batch(self, reduction, small_model):
        switches = {"LOSS.CIR_REDUCTION": reduction}
        model = batch_norms_fixed(small_model(switches))
        inputs = [labeled(count, seed=count) for count in (4, 0, 1, 2)]
        whole, total = model(inputs), model.loss_normalizers(inputs)
        parts = [inputs[:2], inputs[2:]]
        for name, loss in whole.items():
            shares = [model.loss_normalizers(part)[name] / total[name] for part in parts]
            summed = sum(
                share * model(part)[name] for share, part in zip(shares, parts, strict=True)
            )
            torch.testing.assert_close(summed, loss, rtol=1e-4, atol=1e-6)

    def test_a_larger_image_that_joins_the_batch_is_no_part_of_ones_own_targets(self, small_model):
        model = batch_norms_fixed(small_model())
        first = labeled(2)
        alone = model.loss_normalizers([first])
        with_a_large_one = model.loss_normalizers([first, labeled(0, size=(160, 192))])
        torch.testing.assert_close(
            with_a_large_one["loss_displacement"], alone["loss_displacement"]
        )

    def test_data_without_areas_are_refused(self, small_model):
        given = labeled(1)
        given["instances"].remove("gt_areas")
        with pytest.raises(ValueError, match="no gt_areas; let PoseAffineMapper"):
            small_model()([given])

    def test_images_of_another_mapper_need_no_mask(self, small_model):
        model = batch_norms_fixed(small_model())
        given = labeled(1)
        losses = model([given])
        del given["ignore_mask"]
        torch.testing.assert_close(model([given])["loss_cir"], losses["loss_cir"])


class TestInference:
    @pytest.mark.parametrize("switches", SWITCHES)
    def test_persons_come_best_first_with_boxes_about_their_keypoints(self, switches, small_model):
        model = small_model(switches).eval()
        given = {"image": labeled(0)["image"], "height": 192, "width": 512, "return_maps": True}
        with torch.no_grad():
            (output,) = model([given])
        persons = output["instances"]
        assert len(persons) > 1 and persons.image_size == (192, 512)
        assert persons.pred_keypoints.shape == (len(persons), 17, 3)
        assert (persons.scores.diff() <= 0).all()
        assert persons.scores.min() >= 0 and persons.scores.max() <= 1
        places = persons.pred_keypoints[..., :2]
        boxes = torch.cat([places.amin(dim=1), places.amax(dim=1)], dim=1)
        torch.testing.assert_close(persons.pred_boxes.tensor, boxes)
        assert (persons.pred_keypoints[..., 2] == persons.scores[:, None]).all()
        assert output["maps"]["score"].shape == (24, 32)
        assert torch.equal(output["proposals"], places)

    def test_keypoints_are_scaled_to_the_size_that_is_wanted(self, small_model):
        model, image = small_model().eval(), labeled(0)["image"]
        with torch.no_grad():
            (plain,), (scaled,) = (
                model([{"image": image}]),
                model([{"image": image, "height": 192, "width": 512}]),
            )
        factors = torch.tensor([4.0, 2.0])
        torch.testing.assert_close(
            scaled["instances"].pred_keypoints[..., :2],
            plain["instances"].pred_keypoints[..., :2] * factors,
        )

    def test_an_image_alone_gives_what_it_gives_beside_another(self, small_model):
        model = small_model().eval()
        images = [{"image": labeled(0, seed=seed)["image"]} for seed in (0, 1)]
        with torch.no_grad():
            together = model(images)
            for given, output in zip(images, together, strict=True):
                (alone,) = model([given])
                for field in ("pred_keypoints", "scores"):
                    torch.testing.assert_close(
                        alone["instances"].get(field),
                        output["instances"].get(field),
                        rtol=1e-4,
                        atol=1e-3,
                    )

    def test_persons_below_the_threshold_are_left_out(self, small_model):
        model, image = small_model().eval(), labeled(0)["image"]
        with torch.no_grad():
            (all_persons,) = model([{"image": image}])
            threshold = all_persons["instances"].scores[1].item()
            (best,) = model([{"image": image, "score_threshold": threshold}])
        assert len(best["instances"]) == 2

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize(
        ("convolution", "named"),
        [("score_branch.score", "score maps"), ("keypoint_decoder.keypoint", "keypoints or their")],
    )
    def test_a_diverged_head_is_an_error(self, convolution, named, bad, small_model):
        model = small_model().eval()
        model.head.get_submodule(convolution).bias.data[0] = bad
        with (
            torch.no_grad(),
            pytest.raises(FloatingPointError, match=f"{named}.* are NaN or infinite"),
        ):
            model([{"image": labeled(0)["image"]}])

    def test_a_score_map_without_peaks_finds_nobody(self, small_model):
        model = small_model().eval()
        nn.init.constant_(model.head.score_branch.score.bias, -100.0)
        with torch.no_grad():
            (output,) = model([{"image": labeled(0)["image"]}])
        persons = output["instances"]
        assert len(persons) == 0 and persons.pred_keypoints.shape == (0, 17, 3)
        assert persons.pred_boxes.tensor.shape == (0, 4)

    def test_the_mirrored_image_gives_mirrored_persons(self, small_model):
        model = small_model().eval()
        image = labeled(0)["image"]
        # With nothing in the columns that a mirrored view loses, both views change their roles.
        image[..., -3:] = model.pixel_mean
        with torch.no_grad():
            (plain,) = model([{"image": image}])
            normalized = model.preprocess_images([{"image": image}]).tensor
            mirrored = mirror_images(normalized)[0] * model.pixel_std + model.pixel_mean
            (turned,) = model([{"image": mirrored}])
        expected, persons = plain["instances"], turned["instances"]
        assert len(persons) > 1
        torch.testing.assert_close(persons.scores, expected.scores, rtol=1e-3, atol=1e-4)
        keypoints = expected.pred_keypoints[:, model.skeleton.flip_indices]
        keypoints[..., 0] = 4 * 31 + 1 - keypoints[..., 0]
        torch.testing.assert_close(persons.pred_keypoints, keypoints, rtol=1e-3, atol=1e-2)

    def test_suppression_and_the_number_of_peaks_are_switches(self, small_model):
        image = labeled(0)["image"]
        counts = {}
        for nms, peaks in ((True, 30), (False, 30), (False, 3)):
            model = small_model({"NMS.ENABLED": nms, "MAX_PEAKS": peaks}).eval()
            with torch.no_grad():
                counts[nms, peaks] = len(model([{"image": image}])[0]["instances"])
        assert counts[True, 30] <= counts[False, 30]
        assert counts[False, 3] == 3 < counts[False, 30]


class TestScales:
    def test_poses_of_other_scales_are_moved_to_the_frame_of_the_image(self, small_model):
        model = small_model({"TEST_SCALES": [0.5, 1.0, 2.0], "NMS.ENABLED": False}).eval()
        image = labeled(0)["image"]
        with torch.no_grad():
            (all_scales,) = model([{"image": image}])
            model.test_scales = (1.0,)
            (one_scale,) = model([{"image": image}])
            enlarged = nn.functional.interpolate(image[None], scale_factor=2, mode="bilinear")[0]
            (double,) = model([{"image": enlarged, "height": 96, "width": 128}])
        found, alone = all_scales["instances"], one_scale["instances"]
        assert len(found) > len(alone)
        # The best of scale 1 keep their scores; the best of the others have 0.9 of its.
        assert (found.scores == found.scores.amax() * 0.9).sum() >= 1
        for persons in (alone, double["instances"]):
            distances = (
                found.pred_keypoints[:, None, :, :2] - persons.pred_keypoints[None, :, :, :2]
            ).abs()
            nearest = distances.amax(dim=(2, 3)).amin(dim=0)
            assert nearest.max() < 0.05

    def test_scales_without_one_are_refused(self, small_model):
        with pytest.raises(ValueError, match="TEST_SCALES are positive and 1 is one of them"):
            small_model({"TEST_SCALES": [0.5, 2.0]})


class TestSkeletons:
    def test_a_skeleton_of_ones_own(self, small_model, tmp_path):
        file = tmp_path / "hand.yaml"
        file.write_text("keypoints: [wrist, left_a, right_a, left_b, right_b]")
        model = small_model(changes={"MODEL.SKELETON": str(file)})
        losses = model([labeled(2, num_keypoints=5)])
        assert all(torch.isfinite(loss) for loss in losses.values())
        with torch.no_grad():
            (output,) = model.eval()([{"image": labeled(0)["image"]}])
        assert output["instances"].pred_keypoints.shape[1:] == (5, 3)
        with pytest.raises(ValueError, match="17 keypoints per person, the model has 5"):
            model.train()([labeled(1)])

    def test_crowdpose(self, small_model):
        model = small_model(changes={"DATASETS.TRAIN": ("crowdpose_trainval",)})
        losses = model([labeled(1, num_keypoints=14)])
        assert all(torch.isfinite(loss) for loss in losses.values())

    def test_tensors_that_depend_on_it_are_those_whose_shapes_change(self, small_model):
        changes = {"DATASETS.TRAIN": ("crowdpose_trainval",)}
        for switches in ({"POSE_QUERY": "auto"}, {"PQE": False}, {"AGGREGATE": "deform"}):
            coco, crowdpose = small_model(switches), small_model(switches, changes)
            other = crowdpose.state_dict()
            for name, value in coco.state_dict().items():
                differs = value.shape != other[name].shape
                if differs or not name.endswith("num_batches_tracked"):
                    assert coco.is_skeleton_dependent(name) == differs, name


@pytest.mark.parametrize(
    ("name", "size", "parameters", "multiply_adds"),
    [("w32", 512, 29.7e6, 46.4e9), ("w48", 640, 65.8e6, 143.4e9)],
)
def test_published_models_cost_what_the_paper_says(
    name, size, parameters, multiply_adds, repository
):
    cfg = read_config(repository / f"configs/coco/quality_pose_hrnet_{name}.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    assert abs(sum(p.numel() for p in model.parameters()) - parameters) < 0.1e6
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), counter:
        (features,) = model.backbone(torch.zeros(1, 3, size, size)).values()
        model.head.displacements_everywhere(model.head(features))
    assert abs(counter.get_total_flops() / 2 - multiply_adds) < 0.1e9


def test_parts_are_all_that_has_parameters(small_model):
    model = small_model()
    counted = {p for modules in model.parts().values() for m in modules for p in m.parameters()}
    assert counted == set(model.parameters())


def test_folded_batch_norms_and_another_memory_layout_move_nobody(small_model):
    model = small_model({"AGGREGATE": "deform"})
    with torch.no_grad():
        # Statistics and weights that are not those of a new batch norm.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
                module.weight.uniform_(0.8, 1.2)
        given = [{"image": labeled(0)["image"]}]
        (before,) = model.eval()(given)
        assert fold_batch_norms(model) > 2
        model.backbone.to(memory_format=torch.channels_last)
        (after,) = model(given)
    for field in ("pred_keypoints", "scores"):
        expected, actual = before["instances"].get(field), after["instances"].get(field)
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_number_of_persons_can_be_fixed(count, small_model):
    model = small_model().eval()
    model.fix_num_people(count)
    with torch.no_grad():
        outputs = model([{"image": labeled(0, seed=seed)["image"]} for seed in (0, 1)])
    assert [len(output["instances"]) for output in outputs] == [count, count]


def test_half_precision_moves_nobody_far(small_model):
    model = small_model().eval()
    given = {"image": labeled(0)["image"], "return_maps": True}
    with torch.no_grad():
        (exact,) = model([given])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (half,) = model([given])
    assert half["instances"].pred_keypoints.dtype == torch.float32
    exact, half = exact["maps"]["score"], half["maps"]["score"]
    assert (half - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_training_in_half_precision_has_finite_losses_and_gradients(small_model):
    model = small_model({"AGGREGATE": "deform"})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model([labeled(2), labeled(0, seed=1)])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_two_processes_train_as_one_does(run_in_two_processes, tmp_path):
    script = Path(__file__).parent / "quality_pose_processes.py"
    run_in_two_processes(script, tmp_path / "gradients.pth")
    together = torch.load(tmp_path / "gradients.pth", weights_only=True)
    alone = runpy.run_path(str(script))["gradients"](1)
    for name, expected in alone.items():
        scale = expected.abs().max().item()
        torch.testing.assert_close(together[name], expected, rtol=1e-3, atol=1e-4 * scale + 1e-9)
