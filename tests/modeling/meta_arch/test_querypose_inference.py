from __future__ import annotations

import pytest
import torch

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
SIZE = (64, 96)


def _assert_close_people(actual, expected) -> None:
    assert len(actual) == len(expected)
    for name in ("scores", "pred_classes", "pred_keypoints"):
        torch.testing.assert_close(actual.get(name), expected.get(name), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(
        actual.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize("changes", [LIGHT, FULL])
@torch.no_grad()
def test_fields_shapes_and_order(changes, released_model, golden):
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
def test_output_size_rescales_boxes_and_keypoints(released_model, golden):
    model = released_model().eval()
    image = golden("mini_light").images[0]
    height, width = image.shape[1:]
    image_input = {"image": image}
    same = model([image_input])[0]["instances"]
    wanted = {"height": 3 * height, "width": 2 * width}
    scaled = model([image_input | wanted])[0]["instances"]
    assert scaled.image_size == (3 * height, 2 * width)
    assert torch.equal(scaled.scores, same.scores)
    scale = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(scaled.pred_keypoints[..., :2], same.pred_keypoints[..., :2] * scale)
    torch.testing.assert_close(scaled.pred_keypoints[..., 2], same.pred_keypoints[..., 2])
    torch.testing.assert_close(scaled.pred_boxes.tensor, same.pred_boxes.tensor * scale.repeat(2))


@pytest.mark.parametrize("changes", [LIGHT, FULL])
@torch.no_grad()
def test_images_of_a_batch_equal_single_runs(changes, released_model):
    """The sizes differ but are padded to the same one, because padding itself changes outputs."""
    model = released_model(changes).eval()
    sizes = [(96, 128), (70, 100), (90, 97)]
    generator = torch.Generator().manual_seed(0)
    batch = [{"image": 255 * torch.rand(3, *size, generator=generator)} for size in sizes]
    together = model(batch)
    for image_input, output in zip(batch, together, strict=True):
        _assert_close_people(output["instances"], model([image_input])[0]["instances"])


@torch.no_grad()
def test_integer_images_equal_float_ones(released_model):
    model = released_model().eval()
    image = torch.randint(256, (3, *SIZE), dtype=torch.uint8)
    outputs = [model([{"image": value}])[0]["instances"] for value in (image, image.float())]
    _assert_close_people(*outputs)


@torch.no_grad()
def test_half_precision_stays_near_and_gives_float32(released_model, golden):
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
def test_each_image_has_a_score_threshold_of_its_own(released_model, golden):
    model = released_model().eval()
    image = golden("mini_light").images[0]
    everybody = model([{"image": image}])[0]["instances"]
    # Between two scores: rounding depends on the size of a batch.
    threshold = everybody.scores[4:6].mean().item()
    outputs = model([{"image": image, "score_threshold": t} for t in (0.0, threshold, 1.1)])
    sure = everybody[everybody.scores >= threshold]
    assert 0 < len(sure) < len(everybody)
    for output, expected in zip(outputs, (everybody, sure, everybody[:0]), strict=True):
        _assert_close_people(output["instances"], expected)


@torch.no_grad()
def test_attention_comes_with_the_people_where_it_is_asked_for(released_model, golden):
    model = released_model().eval()
    image = golden("mini_light").images[0]
    plain = model([{"image": image}])[0]["instances"]
    image_input = {"image": image, "return_attention": True, "height": 50, "width": 60}
    people = model([image_input])[0]["instances"]
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
def test_extreme_images_run(size, released_model):
    people = released_model().eval()([{"image": torch.rand(3, *size)}])[0]["instances"]
    assert people.pred_keypoints.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@torch.no_grad()
def test_diverged_boxes_are_an_error_and_do_not_reach_the_pooler(bad, small_model, training_input):
    """torchvision's RoIAlign would end the process."""
    model = small_model()
    model.decoder.box_stages[0].register_forward_hook(
        lambda _, __, output: output._replace(boxes=torch.full_like(output.boxes, bad))
    )
    pooled: list = []
    model.decoder.box_pooler.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[1]))
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
def test_diverged_keypoints_are_an_error(head, bad, half, small_model, training_input):
    """One keypoint's one coordinate, whatever else is fine."""
    options = {"AVERAGED_STAGES": 2, "EXPECTED_OKS_POWER": 0.5} if half else {}
    model = small_model({f"MODEL.QUERYPOSE.{k}": v for k, v in options.items()}).eval()
    batch = [training_input(2, SIZE)]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert model(batch)[0]["instances"].pred_keypoints.isfinite().all()
        getattr(model.decoder.keypoint_stages[-1].heads, f"{head}_bias")[3, 1] = bad
        with pytest.raises(FloatingPointError, match="keypoints or their scores are NaN or inf"):
            model(batch)


@torch.no_grad()
def test_keypoints_of_an_enlarged_box_lie_where_it_says(released_model):
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


def test_a_negative_limit_is_none_and_zero_is_refused(tiny_model):
    assert tiny_model({"TEST.DETECTIONS_PER_IMAGE": -1}).max_detections == 12
    with pytest.raises(ValueError, match=r"DETECTIONS_PER_IMAGE\) is at least 1, or negative"):
        tiny_model({"TEST.DETECTIONS_PER_IMAGE": 0})
