from __future__ import annotations

import pytest
import torch
import yaml
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

from querypose.config import read_config
from querypose.modeling.pose_model import skeleton_from_config
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
HEATMAP = {"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True}
ANCHORS = {
    "MODEL.QUERYPOSE.ATTENTION_ANCHORS": True,
    "MODEL.QUERYPOSE.ATTENTION_WEIGHT": 1.0,
}
SIZE = (64, 96)


@pytest.fixture
def released_model(tiny_model, golden):
    """A tiny model with the weights of a golden file, whose queries differ from each other."""

    def build(changes: dict[str, object] | None = None) -> nn.Module:
        full = (changes or {}).get("MODEL.QUERYPOSE.KEYPOINT_FEEDBACK", False)
        model = tiny_model(changes)
        weights = golden("mini_full" if full else "mini_light").state_dict
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert unexpected == []
        assert all(name.startswith("heatmap_head.") for name in missing)
        return model

    return build


def _freeze_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _assert_close_people(actual, expected) -> None:
    assert len(actual) == len(expected)
    for name in ("scores", "pred_classes", "pred_keypoints"):
        torch.testing.assert_close(actual.get(name), expected.get(name), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(
        actual.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-3, atol=1e-2
    )


class TestInference:
    @pytest.mark.parametrize("changes", [LIGHT, FULL])
    @torch.no_grad()
    def test_fields_shapes_and_order(self, changes, released_model, golden):
        model = released_model(changes | {"TEST.DETECTIONS_PER_IMAGE": 5}).eval()
        images = golden("mini_light").images
        for output, image in zip(model([{"image": i} for i in images]), images, strict=True):
            people = output["instances"]
            height, width = image.shape[1:]
            assert people.image_size == (height, width)
            assert len(people) == 5
            assert people.scores.shape == people.pred_classes.shape == (5,)
            assert people.pred_boxes.tensor.shape == (5, 4)
            assert people.pred_keypoints.shape == (5, 17, 3)
            assert people.scores.tolist() == sorted(people.scores.tolist(), reverse=True)
            assert people.pred_classes.tolist() == [0] * 5
            keypoint_scores = people.pred_keypoints[..., 2]
            assert ((keypoint_scores > 0) & (keypoint_scores < 1)).all()
            assert (people.scores <= keypoint_scores.mean(dim=1)).all()
            corners = people.pred_boxes.tensor
            assert (corners >= 0).all()
            assert (corners <= torch.tensor([width, height, width, height])).all()

    @torch.no_grad()
    def test_output_size_rescales_boxes_and_keypoints(self, released_model, golden):
        model = released_model().eval()
        image = golden("mini_light").images[0]
        height, width = image.shape[1:]
        given = {"image": image}
        same = model([given])[0]["instances"]
        wanted = {"height": 3 * height, "width": 2 * width}
        scaled = model([given | wanted])[0]["instances"]
        assert scaled.image_size == (3 * height, 2 * width)
        assert torch.equal(scaled.scores, same.scores)
        scale = torch.tensor([2.0, 3.0])
        torch.testing.assert_close(
            scaled.pred_keypoints[..., :2], same.pred_keypoints[..., :2] * scale
        )
        torch.testing.assert_close(scaled.pred_keypoints[..., 2], same.pred_keypoints[..., 2])
        torch.testing.assert_close(
            scaled.pred_boxes.tensor, same.pred_boxes.tensor * scale.repeat(2)
        )

    @pytest.mark.parametrize("changes", [LIGHT, FULL])
    @torch.no_grad()
    def test_images_of_a_batch_equal_single_runs(self, changes, released_model):
        """Of different sizes that are padded alike: what padding itself changes is no matter."""
        model = released_model(changes).eval()
        sizes = [(96, 128), (70, 100), (90, 97)]
        generator = torch.Generator().manual_seed(0)
        batch = [{"image": 255 * torch.rand(3, *size, generator=generator)} for size in sizes]
        together = model(batch)
        for given, output in zip(batch, together, strict=True):
            _assert_close_people(output["instances"], model([given])[0]["instances"])

    @torch.no_grad()
    def test_integer_images_equal_float_ones(self, released_model):
        model = released_model().eval()
        image = torch.randint(256, (3, *SIZE), dtype=torch.uint8)
        outputs = [model([{"image": value}])[0]["instances"] for value in (image, image.float())]
        _assert_close_people(*outputs)

    @torch.no_grad()
    def test_half_precision_stays_near_and_gives_float32(self, released_model, golden):
        model = released_model().eval()
        batch = [{"image": image} for image in golden("mini_light").images]
        with torch.autocast("cpu", torch.bfloat16):
            people = model(batch)[0]["instances"]
        assert people.pred_keypoints.dtype == people.pred_boxes.tensor.dtype == torch.float32
        assert people.pred_keypoints.isfinite().all()
        expected = model(batch)[0]["instances"]
        distance = (people.scores - expected.scores).abs().max()
        assert distance < 0.05

    @torch.no_grad()
    def test_each_image_has_a_score_threshold_of_its_own(self, released_model, golden):
        model = released_model().eval()
        image = golden("mini_light").images[0]
        everybody = model([{"image": image}])[0]["instances"]
        threshold = everybody.scores.median().item()
        outputs = model([{"image": image, "score_threshold": t} for t in (0.0, threshold, 1.1)])
        sure = everybody[everybody.scores >= threshold]
        assert 0 < len(sure) < len(everybody)
        for output, expected in zip(outputs, (everybody, sure, everybody[:0]), strict=True):
            _assert_close_people(output["instances"], expected)

    @torch.no_grad()
    def test_attention_comes_with_the_people_where_it_is_asked_for(self, released_model, golden):
        model = released_model().eval()
        image = golden("mini_light").images[0]
        plain = model([{"image": image}])[0]["instances"]
        given = {"image": image, "return_attention": True, "height": 50, "width": 60}
        people = model([given])[0]["instances"]
        assert not plain.has("pred_attention")
        torch.testing.assert_close(people.scores, plain.scores)
        stages, parts = len(model.decoder.keypoint_stages), len(model.skeleton.parts)
        assert people.pred_attention.shape[:3] == (len(people), stages, parts)
        torch.testing.assert_close(
            people.pred_attention.sum(dim=(-2, -1)), torch.ones(len(people), stages, parts)
        )
        # The keypoints were looked for in the last stage's boxes, which are not clipped.
        last = people.attention_boxes[:, -1].clone()
        last[:, 0::2] = last[:, 0::2].clamp(0, 60)
        last[:, 1::2] = last[:, 1::2].clamp(0, 50)
        torch.testing.assert_close(last, people.pred_boxes.tensor, atol=1e-3, rtol=1e-3)

    @pytest.mark.parametrize("size", [(1, 1), (5, 200)])
    @torch.no_grad()
    def test_extreme_images_run(self, size, released_model):
        people = released_model().eval()([{"image": torch.rand(3, *size)}])[0]["instances"]
        assert people.pred_keypoints.isfinite().all()

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @torch.no_grad()
    def test_diverged_boxes_are_an_error_and_do_not_reach_the_pooler(
        self, bad, small_model, training_input
    ):
        """torchvision's RoIAlign would end the process."""
        model = small_model()
        model.decoder.box_stages[0].register_forward_hook(
            lambda _, __, output: output._replace(boxes=torch.full_like(output.boxes, bad))
        )
        pooled: list = []
        model.decoder.box_pooler.register_forward_pre_hook(
            lambda _, inputs: pooled.extend(box.tensor for box in inputs[1])
        )
        batch = [training_input(2, SIZE)]
        with pytest.raises(FloatingPointError, match="cost is NaN or infinite"):
            model(batch)
        with pytest.raises(FloatingPointError, match="scores or boxes are NaN or infinite"):
            model.eval()(batch)
        assert len(pooled) == 4
        assert all(boxes.isfinite().all() for boxes in pooled)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("head", ["coordinate", "sigma"])
    @pytest.mark.parametrize("half", [False, True])
    @torch.no_grad()
    def test_diverged_keypoints_are_an_error(self, head, bad, half, small_model, training_input):
        """One keypoint's one coordinate, whatever else is fine."""
        options = {"AVERAGED_STAGES": 2, "EXPECTED_OKS_POWER": 0.5} if half else {}
        model = small_model({f"MODEL.QUERYPOSE.{k}": v for k, v in options.items()}).eval()
        batch = [training_input(2, SIZE)]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            assert model(batch)[0]["instances"].pred_keypoints.isfinite().all()
            getattr(model.decoder.keypoint_stages[-1].heads, f"{head}_bias")[3, 1] = bad
            with pytest.raises(
                FloatingPointError, match="keypoints or their scores are NaN or inf"
            ):
                model(batch)

    @torch.no_grad()
    def test_keypoints_of_an_enlarged_box_lie_where_it_says(self, released_model):
        scale = 1.25
        model = released_model({"MODEL.QUERYPOSE.KEYPOINT_BOX_SCALE": scale}).eval()
        kept: dict = {}
        model.decoder.register_forward_hook(lambda _, inputs, states: kept.update(states=states))
        model.decoder.keypoint_stages[-1].register_forward_hook(
            lambda _, inputs, output: kept.update(output=output)
        )
        model.max_detections = model.decoder.num_queries
        image = 255 * torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
        people = model([{"image": image}])[0]["instances"]
        boxes = kept["states"][-1].boxes[0]
        centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        expected = centers[:, None] + scale * kept["output"].coordinates * sizes[:, None]
        assert len(people) == len(expected)
        torch.testing.assert_close(people.pred_keypoints[..., :2], expected[people.query_indices])


class TestTraining:
    @pytest.mark.parametrize("changes", [LIGHT, FULL, HEATMAP | ANCHORS, FULL | HEATMAP])
    @pytest.mark.parametrize("people", [(0, 0), (2, 0), (3, 2)])
    def test_every_parameter_gets_a_finite_gradient(
        self, changes, people, small_model, training_input
    ):
        model = small_model(changes)
        batch = [training_input(count, SIZE, seed=i) for i, count in enumerate(people)]
        losses = model(batch)
        assert all(loss.isfinite() for loss in losses.values())
        assert ("loss_heatmap" in losses) == bool(model.heatmap_head)
        sum(losses.values()).backward()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert [name for name, p in trained.items() if p.grad is None] == []
        assert [name for name, p in trained.items() if not p.grad.isfinite().all()] == []

    def test_light_model_decodes_matched_queries_as_if_it_decoded_all(
        self, released_model, training_input
    ):
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

        every_loss = self._decoding_everything(model, batch)
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

    @staticmethod
    def _decoding_everything(model, batch):
        pixels = torch.stack([given["image"] for given in batch])
        features = model.backbone((pixels - model.pixel_mean) / model.pixel_std)
        states = model.decoder(features, [SIZE] * len(batch))
        targets = model._targets(batch)
        matches = model.criterion.match(states, targets)
        every = [[torch.arange(model.decoder.num_queries)] * len(batch)] * len(states)
        keypoints = model.decoder.decode_keypoints(features, states, every)
        return model.criterion(states, keypoints, every, matches, targets)

    def test_full_model_decodes_all_queries(self, small_model, training_input):
        model = small_model(FULL)
        decoded: list[int] = []
        model.decoder.keypoint_stages[0].register_forward_hook(
            lambda _, inputs, output: decoded.append(len(inputs[0]))
        )
        model([training_input(1, SIZE), training_input(1, SIZE)])
        assert decoded == [24]

    @pytest.mark.parametrize("changes", [LIGHT, FULL])
    def test_half_precision_trains(self, changes, small_model, training_input):
        model = small_model(changes)
        with torch.autocast("cpu", torch.bfloat16):
            losses = model([training_input(2, SIZE), training_input(0, SIZE)])
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        sum(losses.values()).backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad.isfinite().all(), name

    def test_another_keypoint_count_is_refused(self, small_model, training_input):
        with pytest.raises(ValueError, match="have 14 keypoints per person, the model has 17"):
            small_model()([training_input(1, SIZE, num_keypoints=14)])


class TestSkeletons:
    @pytest.mark.parametrize("num_keypoints", [1, 5])
    @pytest.mark.parametrize("changes", [LIGHT, FULL])
    def test_any_skeleton_trains_and_predicts(
        self, num_keypoints, changes, small_model, training_input, tmp_path
    ):
        file = tmp_path / "skeleton.yaml"
        names = [f"point_{index}" for index in range(num_keypoints)]
        parts = [[4, 0], [2], [1, 3]] if num_keypoints == 5 else [[0]]
        file.write_text(yaml.safe_dump({"keypoints": names, "parts": parts}))
        model = small_model(changes | HEATMAP | {"MODEL.SKELETON": str(file)})
        assert model.decoder.part_queries.num_embeddings == len(parts)
        losses = model([training_input(2, SIZE, num_keypoints)])
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        with torch.no_grad():
            people = model.eval()([{"image": torch.rand(3, *SIZE)}])[0]["instances"]
        assert len(people) > 0
        assert people.pred_keypoints.shape == (len(people), num_keypoints, 3)

    def test_the_first_training_dataset_declares_it(self, tiny_cfg):
        cfg = tiny_cfg({"DATASETS.TRAIN": ("crowdpose_train", "keypoints_coco_2017_train")})
        assert skeleton_from_config(cfg) == CROWDPOSE_SKELETON

    def test_without_training_datasets_the_first_test_dataset_does(self, tiny_cfg):
        cfg = tiny_cfg({"DATASETS.TRAIN": (), "DATASETS.TEST": ("keypoints_coco_2017_val",)})
        assert skeleton_from_config(cfg) == COCO_SKELETON

    def test_every_keypoint_may_be_a_part_of_its_own(self, small_model, training_input):
        model = small_model({"MODEL.QUERYPOSE.PART_PER_KEYPOINT": True})
        assert model.skeleton.parts == tuple((name,) for name in COCO_SKELETON.keypoints)
        assert model.skeleton.flips == COCO_SKELETON.flips
        assert model.decoder.part_queries.num_embeddings == 17
        losses = model([training_input(2, SIZE)])
        assert all(loss.isfinite() for loss in losses.values())

    def test_without_any_dataset_the_way_out_is_named(self, tiny_cfg):
        cfg = tiny_cfg({"DATASETS.TRAIN": (), "DATASETS.TEST": ()})
        with pytest.raises(ValueError, match=r"DATASETS\.TRAIN .*or MODEL\.SKELETON"):
            build_model(cfg)

    def test_a_dataset_without_keypoints_is_refused(self, tiny_cfg):
        name = "test_querypose_without_keypoints"
        MetadataCatalog.get(name).set(thing_classes=["person"])
        with pytest.raises(ValueError, match=f"'{name}' declares no keypoints"):
            build_model(tiny_cfg({"DATASETS.TRAIN": (name,)}))
        MetadataCatalog.remove(name)


# What a released checkpoint has beyond its model's own parameters, in millions.
_GATES = 6 * (128 * 128 + 2 * 128) / 1e6
_HRFPN = (9 * 256 * 256 + 256) / 1e6
_LATERAL_HRFPN = (9 * 256 * 256 + 48 * 256) / 1e6


@pytest.mark.parametrize(
    ("name", "published", "unused"),
    [
        ("r50", 322.6, _GATES),
        ("r50_light", 188.7, _GATES),
        ("hrnet_w32_light", 194.3, _GATES + _HRFPN),
        ("hrnet_w48", 364.5, _GATES + _LATERAL_HRFPN),
        ("swin_l", 493.9, _GATES),
    ],
)
def test_a_published_model_has_its_parameters(name, published, unused, repository):
    (config,) = (repository / "configs" / "coco").glob(f"querypose_{name}_[36]x.yaml")
    with torch.device("meta"):
        model = build_model(read_config(config, ["MODEL.DEVICE", "meta"]))
    flow = sum(p.numel() for p in model.criterion.parameters())
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert flow == 53_784
    assert count + unused == pytest.approx(published, abs=0.051)
