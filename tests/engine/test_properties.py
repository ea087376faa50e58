"""What holds for any people, boxes, files: thousands of generated cases, the same in every run."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import Boxes, BoxMode, Instances
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import nn

from querypose.checkpoint import QueryPoseCheckpointer
from querypose.config import read_config
from querypose.data import QueryPoseDatasetMapper, register_coco_keypoints
from querypose.engine.train_loader import ResumableTrainLoader
from querypose.evaluation import KeypointEvaluator
from querypose.modeling.sparse.box_coordinates import keypoints_to_box, keypoints_to_pixels
from querypose.modeling.sparse.criterion import QueryPoseCriterion
from querypose.modeling.sparse.decoder import StageState
from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.targets import PersonTargets
from querypose.skeleton import COCO_SKELETON
from querypose.tools import check_dataset

WIDTH, HEIGHT = 60, 40
SIZE = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT], dtype=torch.float32)


def cases(count):
    """Generated in the same order on every machine, with no limit on a single one's time."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def floats(low, high):
    return st.floats(low, high, width=32)


@st.composite
def boxes_xyxy(draw, count, *, low=-200.0, high=300.0, smallest=0.0):
    corner = draw(arrays(np.float32, (count, 2), elements=floats(low, high)))
    sides = draw(arrays(np.float32, (count, 2), elements=floats(smallest, high)))
    return torch.from_numpy(np.concatenate([corner, corner + sides], axis=1))


@st.composite
def people(draw, max_people=4, num_keypoints=17):
    """Points lie on eighths of a pixel: flips and halvings of them are exact."""
    count = draw(st.integers(0, max_people))
    eighths = draw(arrays(np.int16, (count, num_keypoints, 2), elements=st.integers(-800, 1600)))
    points = eighths.astype(np.float32) / 8
    flags = draw(arrays(np.float32, (count, num_keypoints, 1), elements=st.sampled_from([0, 1, 2])))
    boxes = draw(boxes_xyxy(count, smallest=0.0625))
    keypoints = torch.from_numpy(np.concatenate([points, flags], axis=2))
    return PersonTargets(boxes, torch.zeros(count, dtype=torch.long), keypoints, SIZE)


MATCHER = HungarianMatcher(
    class_cost=2.0, l1_cost=5.0, giou_cost=2.0, focal_alpha=0.25, focal_gamma=2.0
)


def logits(count):
    return arrays(np.float32, (1, count, 1), elements=floats(-50, 50)).map(torch.from_numpy)


@cases(600)
@given(data=st.data(), num_queries=st.integers(1, 5))
def test_matcher_finds_the_cheapest_one_to_one_assignment(data, num_queries):
    scores, target = data.draw(logits(num_queries)), data.draw(people(3))
    boxes = data.draw(boxes_xyxy(num_queries))
    (((queries, matched),),) = MATCHER([scores], [boxes[None]], [target])
    num_people = len(target.boxes)
    assert len(queries) == len(matched) == min(num_queries, num_people)
    assert len(set(queries.tolist())) == len(set(matched.tolist())) == len(queries)

    cost = MATCHER.cost(scores[0], boxes, target).double()
    if num_queries < num_people:
        cost = cost.T
    rows, columns = cost.shape
    cheapest = min(
        sum(cost[row, column] for column, row in enumerate(chosen))
        for chosen in itertools.permutations(range(rows), columns)
    )
    found = MATCHER.cost(scores[0], boxes, target).double()[queries, matched].sum()
    assert float(found) == pytest.approx(float(cheapest), rel=1e-5, abs=1e-4)


@cases(300)
@given(
    data=st.data(),
    target=people(),
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    where=st.sampled_from(["logits", "boxes"]),
)
def test_bad_numbers_never_reach_the_assignment(data, target, bad, where):
    assume(len(target.boxes) and not (where == "logits" and math.isinf(bad)))
    scores, boxes = data.draw(logits(4)), data.draw(boxes_xyxy(4))[None]
    broken = scores if where == "logits" else boxes
    broken.view(-1)[data.draw(st.integers(0, broken.numel() - 1))] = bad
    with pytest.raises(FloatingPointError, match="The matching cost is NaN or infinite"):
        MATCHER([scores], [boxes], [target])


CRITERION = QueryPoseCriterion(
    matcher=MATCHER,
    class_weight=2.0,
    l1_weight=5.0,
    giou_weight=2.0,
    keypoint_weight=1.0,
    focal_alpha=0.25,
    focal_gamma=2.0,
)


@cases(400)
@given(data=st.data(), target=people())
def test_losses_of_any_people_are_finite(data, target):
    scores, boxes = data.draw(logits(5)), data.draw(boxes_xyxy(5))[None]
    coordinates = data.draw(arrays(np.float32, (5, 17, 2), elements=floats(-3, 3)))
    sigmas = data.draw(arrays(np.float32, (5, 17, 2), elements=floats(0.0078125, 1)))
    leaves = [scores, boxes, torch.from_numpy(coordinates), torch.from_numpy(sigmas)]
    for leaf in leaves:
        leaf.requires_grad_()
    state = StageState(scores, boxes, boxes.detach(), torch.zeros(1, 5, 8), None)
    output = KeypointStageOutput(leaves[2], leaves[3], torch.zeros(5, 7, 8), torch.zeros(5, 7, 1))
    losses = CRITERION(
        [state], [output], [[torch.arange(5)]], CRITERION.match([state], [target]), [target]
    )
    assert all(loss.isfinite() for loss in losses.values())
    assert all(losses[name] >= 0 for name in ("loss_ce", "loss_bbox", "loss_giou"))
    gradients = torch.autograd.grad(sum(losses.values()), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)


@cases(400)
@given(data=st.data(), boxes=boxes_xyxy(3, smallest=1.0))
def test_pixels_to_the_box_and_back(data, boxes):
    points = data.draw(arrays(np.float32, (3, 17, 2), elements=floats(-500, 500)))
    points = torch.from_numpy(points)
    back = keypoints_to_pixels(keypoints_to_box(points, boxes), boxes)
    torch.testing.assert_close(back, points, rtol=1e-4, atol=1e-2)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("image") / "a.png"
    Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199)).save(path)
    return str(path)


def mapper(*augmentations):
    return QueryPoseDatasetMapper(
        is_train=True,
        image_format="RGB",
        augmentations=augmentations,
        crop_augmentations=[],
        crop_probability=0.0,
        skeleton=COCO_SKELETON,
    )


PLAIN = mapper()
FLIPPING = mapper(T.RandomFlip(prob=1.0))
RESIZING = mapper(T.ResizeShortestEdge([80], 1000, "choice"))


def record(file_name, target):
    annotations = [
        {
            "bbox": box.tolist(),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "keypoints": keypoints.flatten().tolist(),
        }
        for box, keypoints in zip(target.boxes, target.keypoints, strict=True)
    ]
    size = {"width": WIDTH, "height": HEIGHT}
    return {"file_name": file_name, "annotations": annotations} | size


def flipped_back(keypoints):
    names, partner = COCO_SKELETON.keypoints, {}
    for left, right in COCO_SKELETON.flips:
        partner |= {left: right, right: left}
    order = [names.index(partner.get(name, name)) for name in names]
    keypoints = keypoints[:, order].clone()
    keypoints[..., 0] = torch.where(keypoints[..., 2] > 0, WIDTH - keypoints[..., 0], 0)
    return keypoints


@cases(400)
@given(target=people())
def test_mapped_people_can_be_mapped_back(image, target):
    plain, flipped, resized = (
        augmenting(record(image, target))["instances"] for augmenting in (PLAIN, FLIPPING, RESIZING)
    )
    before = plain.gt_keypoints.tensor
    labeled = before[..., 2] > 0
    assert len(plain) <= len(target.boxes) and plain.gt_boxes.nonempty().all()
    inside = (before[..., :2] >= 0) & (before[..., :2] <= torch.tensor([WIDTH, HEIGHT]))
    assert inside[labeled].all()

    assert len(flipped) == len(plain) and flipped.image_size == (HEIGHT, WIDTH)
    torch.testing.assert_close(flipped_back(flipped.gt_keypoints.tensor), before, rtol=0, atol=1e-3)
    assert len(resized) >= len(plain) and resized.image_size == (80, 120)
    if len(resized) == len(plain):
        after = resized.gt_keypoints.tensor
        assert torch.equal(after[..., 2], before[..., 2])
        torch.testing.assert_close(after[labeled] / torch.tensor([2, 2, 1]), before[labeled])


@cases(150)
@given(
    sizes=st.lists(st.booleans(), min_size=1, max_size=9),
    batch_size=st.integers(1, 4),
    grouped=st.booleans(),
    stop=st.integers(0, 12),
    seed=st.integers(0, 2**40),
)
def test_a_stream_continues_wherever_it_was_left(sizes, batch_size, grouped, stop, seed):
    def loader():
        return ResumableTrainLoader(
            records=list(enumerate(sizes)),
            mapper=lambda given: (*given, np.random.rand()),
            build_sampler=lambda seed: TrainingSampler(len(sizes), seed=seed),
            batch_size=batch_size,
            num_workers=0,
            seed=seed,
            wide=sizes if grouped else None,
        )

    whole = list(itertools.islice(loader(), 14))
    first, second = loader(), loader()
    assert list(itertools.islice(first, stop)) == whole[:stop]
    second.load_state_dict(first.state_dict())
    assert list(itertools.islice(second, 14 - stop)) == whole[stop:]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Writes people into a dataset's annotation file; gives its evaluator."""
    folder: Path = tmp_path_factory.mktemp("evaluated")
    names = itertools.count()

    def make(target):
        boxes = BoxMode.convert(target.boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
        annotations = [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
                "area": box[2] * box[3],
                "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "keypoints": keypoints.flatten().tolist(),
            }
            for i, (box, keypoints) in enumerate(zip(boxes, target.keypoints, strict=True))
        ]
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        name = f"evaluated_{folder.name}_{next(names)}"
        json_file = folder / f"{name}.json"
        json_file.write_text(json.dumps(content))
        register_coco_keypoints(name, json_file, folder, COCO_SKELETON)
        return KeypointEvaluator(
            name, tasks=("keypoints",), kpt_oks_sigmas=list(COCO_SKELETON.sigmas)
        )

    return make


def detections(boxes, keypoints, scores):
    found = Instances((HEIGHT, WIDTH))
    found.pred_boxes = Boxes(boxes)
    found.scores = scores
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.long)
    # Detectron2 moves predicted points back to pixel indices.
    found.pred_keypoints = keypoints + torch.tensor([0.5, 0.5, 0.0])
    return found


@cases(80)
@given(data=st.data(), target=people())
def test_evaluation_is_bounded_and_the_truth_scores_highest(evaluated, capfd, data, target):
    # Who has no labeled keypoint cannot be found, only be mistaken for.
    assume(len(target.boxes) and (target.keypoints[..., 2] > 0).any(dim=1).all())
    # As far apart as images of people may be, so that no answer fits two of them.
    shift = 10_000.0 * torch.arange(len(target.boxes))[:, None]
    keypoints = target.keypoints.clone()
    keypoints[..., :2] += shift[..., None]
    target = target._replace(boxes=target.boxes + shift, keypoints=keypoints)
    scores = torch.linspace(1, 0.5, len(target.boxes))
    noise = data.draw(arrays(np.float32, tuple(keypoints.shape), elements=floats(-1e6, 1e6)))

    def average_precision(points):
        evaluator = evaluated(target)
        evaluator.reset()
        found = detections(target.boxes, points, scores)
        evaluator.process([{"image_id": 1}], [{"instances": found}])
        return evaluator.evaluate()["keypoints"]["AP"]

    assert average_precision(keypoints) == pytest.approx(100)
    assert 0 <= average_precision(keypoints + torch.from_numpy(noise)) <= 100.0001
    capfd.readouterr()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
FIELDS = ("id", "bbox", "area", "keypoints", "num_keypoints", "iscrowd")


ROW = st.dictionaries(
    st.sampled_from([*FIELDS, "image_id", "category_id", "file_name", "width", "height", "name"]),
    st.just(1) | JSON_VALUES,
)
SOUND = {
    "images": {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
    "annotations": {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0},
    "categories": {"id": 1, "name": "person"},
}


@cases(250)
@given(data=st.data())
def test_label_files_load_or_are_refused_and_the_check_agrees(tmp_path, data):
    """Sound ones in which some fields are anything at all, and anything at all."""
    tables = {
        key: [sound | data.draw(ROW)] if data.draw(st.booleans()) else data.draw(JSON_VALUES)
        for key, sound in SOUND.items()
    }
    path = tmp_path / "people.json"
    path.write_text(json.dumps(tables if data.draw(st.integers(0, 9)) else data.draw(JSON_VALUES)))
    register_coco_keypoints("fuzzed", path, tmp_path, COCO_SKELETON)
    try:
        problems = check_dataset.find_problems("fuzzed")
        try:
            records = DatasetCatalog.get("fuzzed")
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            assert problems[str(path)][0].rstrip(".") in str(error)
        else:
            assert str(path) not in problems
            assert [record["height"] for record in records] == [tables["images"][0]["height"]]
    finally:
        DatasetCatalog.remove("fuzzed")
        MetadataCatalog.remove("fuzzed")


BASE = str(Path(__file__).parents[2] / "configs" / "Base-QueryPose.yaml")


@cases(60)
@given(
    key=st.sampled_from(["SOLVER.BASE_LR", "DATASETS.TRAIN", "MODEL.QUERYPOSE.NUM_QUERIES", "X.Y"]),
    value=st.text(max_size=12) | JSON_VALUES,
)
def test_options_fit_or_are_refused_in_a_sentence(key, value):
    try:
        read_config(BASE, [key, value])
    except ValueError as error:
        assert str(error).startswith(BASE)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(20))


@cases(300)
@given(data=st.data())
def test_damaged_checkpoints_are_refused_in_a_sentence(tmp_path, data):
    """Cut short, with bytes changed, or never a checkpoint."""
    whole = tmp_path / "whole.pth"
    if not whole.exists():
        torch.save({"model": Tiny().state_dict()}, whole)
    content = bytearray(whole.read_bytes())
    damage = data.draw(st.sampled_from(["cut", "bytes", "other"]))
    if damage == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif damage == "bytes":
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        content = data.draw(st.binary(max_size=200))
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    try:
        QueryPoseCheckpointer(Tiny()).load(str(path))
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert damage == "bytes"
