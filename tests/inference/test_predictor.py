from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from PIL import Image
from torch import nn

from querypose.config import read_config
from querypose.inference.acceleration import check_precision
from querypose.inference.predictor import PosePredictor
from querypose.skeleton import COCO_SKELETON

SMALL = {"INPUT.MIN_SIZE_TEST": 96, "INPUT.MAX_SIZE_TEST": 160}


@pytest.fixture
def weights(tiny_model, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": tiny_model(SMALL).state_dict()}, path)
    return path


@pytest.fixture
def predictor(tiny_cfg, weights):
    return PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, confidence_threshold=0)


def random_image(height=60, width=80, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


def assert_same(first, second, tolerance=1e-3):
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)
    np.testing.assert_allclose(first.boxes_xyxy, second.boxes_xyxy, atol=tolerance)
    np.testing.assert_allclose(first.keypoints, second.keypoints, atol=tolerance)


def test_predictions_equal_those_of_detectron2s_predictor(tiny_cfg, weights, predictor):
    image = random_image(70, 110)
    cfg = tiny_cfg(SMALL | {"MODEL.WEIGHTS": str(weights)})
    expected = DefaultPredictor(cfg)(image[:, :, ::-1])["instances"]
    found = predictor(image)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, expected.pred_boxes.tensor, atol=1e-3)
    np.testing.assert_allclose(found.keypoints, expected.pred_keypoints, atol=1e-3)


def test_every_kind_of_input_gives_the_same_people(predictor, tmp_path):
    image = random_image()
    Image.fromarray(image).save(tmp_path / "image.png")
    alpha = np.full((*image.shape[:2], 1), 7, np.uint8)
    expected = predictor(image)
    for same in (
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(image),
        np.concatenate([image, alpha], axis=2),
    ):
        assert_same(predictor(same), expected)
    bgra = np.concatenate([image[:, :, ::-1], alpha], axis=2)
    assert_same(predictor(image[:, :, ::-1], channel_order="BGR"), expected)
    assert_same(predictor(bgra, channel_order="BGR"), expected)
    assert predictor(image[:, :, ::-1]).to_json() != expected.to_json()


def test_a_bgr_model_gets_bgr(tiny_cfg, weights, predictor):
    cfg = tiny_cfg(SMALL | {"INPUT.FORMAT": "BGR"})
    reads_bgr = PosePredictor.from_config(cfg, weights=weights, confidence_threshold=0)
    image = random_image()
    assert_same(reads_bgr(image[:, :, ::-1]), predictor(image))
    assert_same(reads_bgr(Image.fromarray(image[:, :, ::-1].copy())), predictor(image))


def test_gray_images_are_repeated_in_three_channels(predictor):
    gray = random_image()[:, :, 0]
    expected = predictor(np.stack([gray] * 3, axis=2))
    sixteen_bits = Image.fromarray(gray.astype(np.uint16) * 257)
    for same in (gray, gray[:, :, None], Image.fromarray(gray), sixteen_bits):
        assert_same(predictor(same), expected)


def test_images_from_paths_are_rotated_by_exif(predictor, tmp_path):
    image = random_image()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    Image.fromarray(np.rot90(image).copy()).save(tmp_path / "turned.png", exif=exif)
    assert_same(predictor(tmp_path / "turned.png"), predictor(image))


def test_a_list_keeps_its_order_and_shares_batches_by_size(tiny_cfg, weights):
    predictor = PosePredictor.from_config(
        tiny_cfg(SMALL), weights=weights, confidence_threshold=0, batch_size=2
    )
    wide = [random_image(60, 80, seed) for seed in range(3)]
    tall = [random_image(80, 60, seed) for seed in range(2)]
    expected = [predictor(image) for image in (*wide, *tall)]
    sizes = []
    predictor.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found = predictor([wide[0], tall[0], wide[1], wide[2], tall[1]])
    assert sorted(sizes) == [1, 2, 2]
    for prediction, index in zip(found, (0, 3, 1, 2, 4), strict=True):
        assert_same(prediction, expected[index])
    assert predictor([]) == []


@pytest.mark.parametrize("method", ["pinet", "quality_pose"])
def test_boxes_end_at_the_image_though_keypoints_do_not(method):
    torch.manual_seed(0)
    small = ("MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.PRETRAINED", False)
    model = build_model(read_config(f"quick/{method}_lite0", [*small, "MODEL.DEVICE", "cpu"]))
    head = model.head
    scores, offsets = (
        (head.parts, head.offsets)
        if method == "pinet"
        else (head.score_branch.score, head.keypoint_decoder.keypoint)
    )
    nn.init.constant_(scores.bias, 0.5)
    nn.init.uniform_(offsets.bias, -30, 30)
    found = PosePredictor(model, min_size=96, confidence_threshold=0)(random_image())
    assert len(found) > 0 and (found.keypoints[..., :2] < 0).any()
    boxes = found.boxes_xyxy
    assert (boxes >= 0).all() and (boxes <= [80, 60, 80, 60]).all()
    inside = found.keypoints[..., :2].clip(0, [80, 60])
    expected = np.concatenate([inside.min(axis=1), inside.max(axis=1)], axis=1)
    np.testing.assert_allclose(boxes, expected)


def test_only_confident_people_are_returned(tiny_cfg, weights, predictor):
    everyone = predictor(random_image())
    threshold = float(np.sort(everyone.scores)[len(everyone) // 2])
    strict = PosePredictor.from_config(
        tiny_cfg(SMALL), weights=weights, confidence_threshold=threshold
    )
    confident = strict(random_image())
    np.testing.assert_allclose(
        confident.scores, everyone.scores[everyone.scores >= threshold], atol=1e-6
    )
    assert 0 < len(confident) < len(everyone)


def test_people_above_a_score_are_those_of_a_higher_threshold(tiny_cfg, weights, predictor):
    everyone = predictor(random_image(), return_attention=True)
    threshold = float(np.sort(everyone.scores)[len(everyone) // 2])
    strict = PosePredictor.from_config(
        tiny_cfg(SMALL), weights=weights, confidence_threshold=threshold
    )
    expected, above = strict(random_image(), return_attention=True), everyone.above(threshold)
    assert_same(above, expected)
    assert 0 < len(above) < len(everyone)
    torch.testing.assert_close(above.attention.maps, expected.attention.maps)
    torch.testing.assert_close(above.attention.boxes_xyxy, expected.attention.boxes_xyxy)


def test_thresholds_come_from_the_config(tiny_cfg, weights):
    cfg = tiny_cfg(SMALL | {"DEMO.CONFIDENCE_THRESHOLD": 0.99, "DEMO.KEYPOINT_THRESHOLD": 0.25})
    predict = PosePredictor.from_config(cfg, weights=weights)
    assert (predict.confidence_threshold, predict.keypoint_threshold) == (0.99, 0.25)
    assert not predict.score_scale.is_measured
    assert len(predict(random_image())) == 0
    usual = PosePredictor(predict.model)
    assert (usual.confidence_threshold, usual.keypoint_threshold) == (0.3, 0.7)


def test_an_image_without_people_gives_an_empty_prediction(tiny_cfg, weights):
    strict = PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, confidence_threshold=1)
    nobody = strict(random_image(), return_attention=True)
    assert len(nobody) == 0
    assert nobody.keypoints.shape == (0, 17, 3)
    assert nobody.to_json() == {"width": 80, "height": 60, "people": []}
    assert nobody.to_coco(1) == []
    assert len(nobody.attention.maps) == len(nobody.attention.boxes_xyxy) == 0


def test_json_holds_names_and_pixels(predictor):
    found = predictor(random_image())
    content = found.to_json()
    assert (content["width"], content["height"]) == (80, 60)
    assert len(content["people"]) == len(found)
    person = content["people"][0]
    assert "id" not in person
    assert list(person["keypoints"]) == list(predictor.skeleton.keypoints)
    np.testing.assert_allclose(person["keypoints"]["nose"], found.keypoints[0, 0], atol=0.006)
    np.testing.assert_allclose(person["box"], found.boxes_xyxy[0], atol=0.006)
    found.instances.track_ids = torch.arange(5, 5 + len(found))
    assert found.to_json()["people"][0]["id"] == 5


def test_coco_results_are_pixel_indices(predictor):
    found = predictor(random_image())
    before = found.keypoints.copy()
    results = found.to_coco(image_id=42)
    np.testing.assert_array_equal(found.keypoints, before)
    assert {result["image_id"] for result in results} == {42}
    assert {result["category_id"] for result in results} == {1}
    np.testing.assert_allclose(
        np.reshape(results[0]["keypoints"], (-1, 3)), before[0] - (0.5, 0.5, 0), atol=1e-4
    )
    x0, y0, x1, y1 = found.boxes_xyxy[0].tolist()
    np.testing.assert_allclose(results[0]["bbox"], (x0, y0, x1 - x0, y1 - y0), atol=1e-4)


@pytest.mark.parametrize("category_id", [0, 7, "person"])
def test_coco_results_have_the_category_of_the_training(
    tiny_cfg, weights, label_content, write_labels, tmp_path, category_id
):
    content = label_content(COCO_SKELETON.keypoints)
    content["categories"][0]["id"] = category_id
    name = f"predicted_{tmp_path.name}"
    entry = [name, str(write_labels(content)), str(tmp_path)]
    cfg = tiny_cfg(SMALL | {"DATASETS.REGISTER": [entry], "DATASETS.TRAIN": (name,)})
    try:
        predict = PosePredictor.from_config(cfg, weights=weights, confidence_threshold=0)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    results = predict(random_image()).to_coco(image_id=1)
    assert {result["category_id"] for result in results} == {category_id}


@pytest.mark.parametrize("feedback", [False, True])
def test_attention_belongs_to_the_returned_people(tiny_cfg, tiny_model, tmp_path, feedback):
    changes = SMALL | {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": feedback}
    torch.save({"model": tiny_model(changes).state_dict()}, tmp_path / "weights.pth")
    predictor = PosePredictor.from_config(
        tiny_cfg(changes), weights=tmp_path / "weights.pth", confidence_threshold=0
    )
    images = [random_image(60, 80, seed) for seed in range(2)]
    plain = predictor(images)
    for stage in (0, -1):
        found = predictor(images, return_attention=True, attention_stage=stage)
        for before, after in zip(plain, found, strict=True):
            assert before.attention is None
            assert_same(before, after)
            assert after.attention.stage == stage % 2
            assert after.attention.maps.shape == (len(after), 7, 28, 28)
            sums = after.attention.maps.sum((-1, -2))
            torch.testing.assert_close(sums, torch.ones_like(sums))
            alone = predictor(images[found.index(after)], return_attention=True)
            if stage == -1:
                torch.testing.assert_close(after.attention.maps, alone.attention.maps)
    for prediction in found:
        last_boxes = Boxes(prediction.attention.boxes_xyxy.clone())
        last_boxes.clip((60, 80))
        np.testing.assert_allclose(last_boxes.tensor, prediction.boxes_xyxy, atol=1e-3)


def test_attention_covers_the_enlarged_box_of_the_keypoint_stage(tiny_cfg, weights):
    first, enlarged = (
        PosePredictor.from_config(
            tiny_cfg(SMALL | {"MODEL.QUERYPOSE.KEYPOINT_BOX_SCALE": scale}),
            weights=weights,
            confidence_threshold=0,
        )(random_image(), return_attention=True)
        for scale in (1.0, 1.5)
    )
    first_of = {int(query): i for i, query in enumerate(first.instances.query_indices)}
    order = [first_of[int(query)] for query in enlarged.instances.query_indices]
    boxes, expected = enlarged.attention.boxes_xyxy, first.attention.boxes_xyxy[order]
    torch.testing.assert_close(
        boxes[:, 2:] - boxes[:, :2], 1.5 * (expected[:, 2:] - expected[:, :2])
    )
    torch.testing.assert_close(boxes[:, 2:] + boxes[:, :2], expected[:, 2:] + expected[:, :2])


def test_attention_follows_each_persons_query(predictor):
    """The k-th map equals that of decoding the query of the k-th person alone."""
    found = predictor(random_image(), return_attention=True)
    model, inputs = predictor.model, predictor.prepare(random_image(), "RGB")
    kept = {}
    model.decoder.register_forward_hook(lambda _, inputs, states: kept.update(all=(inputs, states)))
    with torch.no_grad():
        model([inputs])
        (features, _), states = kept["all"]
        for person in (0, len(found) - 1):
            query = found.instances.query_indices[person : person + 1]
            alone = model.decoder.decode_keypoints(features, states, [[query]] * len(states))[-1]
            torch.testing.assert_close(
                alone.attention[0], found.attention.maps[person], atol=1e-5, rtol=1e-3
            )


def test_threads_share_a_predictor(predictor):
    images = [random_image(60, 80, seed) for seed in range(6)]
    expected = predictor(images)
    maps = [predictor(image, return_attention=True).attention.maps for image in images]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(predictor, image, return_attention=index % 2 == 0)
            for index, image in enumerate(images * 2)
        ]
    for index, job in enumerate(jobs):
        found = job.result()
        assert_same(found, expected[index % 6])
        assert (found.attention is not None) == (index % 2 == 0)
        if found.attention is not None:
            torch.testing.assert_close(found.attention.maps, maps[index % 6])


def test_predicting_does_not_change_random_numbers_and_gradient_mode(predictor):
    state, grad = np.random.get_state()[1].copy(), torch.is_grad_enabled()
    found = predictor(random_image())
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert torch.is_grad_enabled() == grad
    found.instances.pred_keypoints += 1  # an ordinary tensor


def test_half_precision_stays_close(tiny_cfg, weights, predictor):
    try:
        check_precision("bf16", torch.device("cpu"))
    except ValueError:
        pytest.skip("this processor has no bf16")
    half = PosePredictor.from_config(
        tiny_cfg(SMALL), weights=weights, confidence_threshold=0, precision="bf16"
    )
    found, expected = half(random_image()), predictor(random_image())
    assert found.keypoints.dtype == found.boxes_xyxy.dtype == np.float32
    # Boxes at the edge of the image may be found by only one of them.
    exact = dict(zip(expected.instances.query_indices.tolist(), expected.scores, strict=True))
    common = [query for query in found.instances.query_indices.tolist() if query in exact]
    assert len(common) >= 3
    half_scores = dict(zip(found.instances.query_indices.tolist(), found.scores, strict=True))
    for query in common:
        assert half_scores[query] == pytest.approx(exact[query], rel=0.1)


def test_an_unsupported_precision_is_refused():
    if not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        with pytest.raises(ValueError, match=r"cpu has no fp16 arithmetic; use 'fp32'"):
            check_precision("fp16", torch.device("cpu"))
    with pytest.raises(ValueError, match="precision is one of"):
        check_precision("int8", torch.device("cpu"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "is uint8, 0 to 255, got float32"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (Image.new("F", (4, 4)), "mode 'F' has no known range"),
        ([3], "a path, a Pillow image or an array, got int"),
        # OpenCV's imread returns None for a missing file.
        (None, "a path, a Pillow image or an array, got NoneType"),
        (b"\x89PNG", "got bytes"),
        ({"image": 1}, "got dict"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "got Tensor"),
        ("https://example.org/image.jpg", "from files, not from the network"),
    ],
)
def test_an_invalid_image_is_refused(predictor, bad, message):
    with pytest.raises(ValueError, match=message):
        predictor(bad)


def test_invalid_arguments_are_refused(tiny_cfg, weights, predictor, tmp_path):
    with pytest.raises(ValueError, match="channel_order is one of"):
        predictor(random_image(), channel_order="GBR")
    with pytest.raises(ValueError, match="2 stages, so no attention_stage 2"):
        predictor(random_image(), return_attention=True, attention_stage=2)
    with pytest.raises(FileNotFoundError, match=r"no image .*nowhere\.jpg"):
        predictor(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match=r"within 0\.\.1, got 30"):
        PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, confidence_threshold=30)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, batch_size=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device here"):
            PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, device="cuda")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.QUERYPOSE.NUM_QUERRIES", "3"], "did you mean MODEL.QUERYPOSE.NUM_QUERIES?"),
        (["MODEL.MASK_ON"], "odd length"),
        (["INPUT.MIN_SIZE_TEST", "small"], "INPUT.MIN_SIZE_TEST"),
        (["INPUT.MIN_SIZE_TEST", "-5"], "at least 0 .* got -5 and 160"),
        (["INPUT.MAX_SIZE_TEST", "0"], "at least 1 .* got 96 and 0"),
        (["MODEL.BACKBONE.NAME", "build_nothing"], "cannot be built: No object named"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet"], "RetinaNet is no pose model"),
    ],
)
def test_invalid_options_are_refused(tiny_cfg, weights, opts, message):
    with pytest.raises(ValueError, match=message):
        PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, opts=opts)


@pytest.mark.parametrize("device", ["toaster", "meta", "mps", "cuda:99"])
def test_a_missing_device_is_refused(tiny_cfg, weights, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is such a device")
    with pytest.raises(ValueError, match=rf"'?{device}'?"):
        PosePredictor.from_config(tiny_cfg(SMALL), weights=weights, device=device)
    with pytest.raises(ValueError, match=rf"'?{device}'?"):
        PosePredictor(device=device)


def test_a_given_model_stays_on_its_device(predictor):
    with pytest.raises(ValueError, match=r"move it with model\.to"):
        PosePredictor(predictor.model, device="cpu")


def test_images_keep_their_size_at_a_min_size_of_zero(predictor):
    sizes = []
    predictor.model.register_forward_pre_hook(
        lambda _, arguments: sizes.extend(tuple(item["image"].shape[1:]) for item in arguments[0])
    )
    not_resizing = PosePredictor(predictor.model, min_size=0)
    not_resizing([random_image(60, 80), random_image(1000, 40)])
    assert sorted(sizes) == [(60, 80), (1000, 40)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
def test_images_of_any_shape_are_accepted(predictor, shape):
    assert predictor(np.zeros(shape, np.uint8)).instances.image_size == shape


def test_attention_is_returned_on_request(predictor):
    assert predictor(random_image(), return_attention=True).attention is not None
    assert predictor(random_image()).attention is None


def test_without_the_configured_gpu_the_cpu_is_used(tiny_cfg, weights):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    predictor = PosePredictor.from_config(tiny_cfg({"MODEL.DEVICE": "cuda"}), weights=weights)
    assert predictor.model.device.type == "cpu"


def test_weights_must_be_those_of_a_whole_model(tiny_cfg, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="no weights to predict with"):
        PosePredictor.from_config(tiny_cfg(SMALL))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        PosePredictor.from_config(tiny_cfg(SMALL), weights=tmp_path / "nowhere.pth")
    # Detectron2's zoo files are pickled arrays of a backbone.
    prefix = "backbone.bottom_up."
    arrays = {
        name.removeprefix(prefix): value.numpy()
        for name, value in tiny_model(SMALL).state_dict().items()
        if name.startswith(prefix)
    }
    (tmp_path / "resnet.pkl").write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(ValueError, match=r"resnet\.pkl holds only a backbone"):
        PosePredictor.from_config(tiny_cfg(SMALL), weights=tmp_path / "resnet.pkl")


def test_a_config_file_and_options_make_a_predictor(tiny_cfg, weights, predictor, tmp_path):
    (tmp_path / "config.yaml").write_text(tiny_cfg(SMALL).dump())
    from_file = PosePredictor.from_config(
        tmp_path / "config.yaml",
        opts=["MODEL.WEIGHTS", str(weights), "TEST.DETECTIONS_PER_IMAGE", "3"],
        confidence_threshold=0,
    )
    few, everyone = from_file(random_image()), predictor(random_image())
    assert len(few) == 3 < len(everyone)
    np.testing.assert_allclose(few.scores, everyone.scores[:3], atol=1e-6)
