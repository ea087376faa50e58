from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import DatasetMapperTTA
from detectron2.structures import Boxes, Instances

from querypose import PosePredictor, model_zoo
from querypose.data.datasets.synthetic import SyntheticPeople
from querypose.data.picture import read_picture
from querypose.modeling.test_time_augmentation import QueryPoseWithTTA, average_people

BOXES = [[10, 10, 50, 90], [60, 20, 100, 95], [0, 0, 20, 20]]


def people(boxes, scores, sigma=0.2, classes=None):
    """Whoever is in ``boxes``; both keypoints in the box's centre."""
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    places = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None].expand(-1, 2, 2)
    confidence = torch.full((len(boxes), 2, 1), 1 - sigma)
    return Instances(
        (100, 120),
        pred_boxes=Boxes(boxes),
        scores=torch.tensor(scores, dtype=torch.float32),
        pred_classes=torch.tensor(classes or [0] * len(boxes), dtype=torch.int64),
        pred_keypoints=torch.cat([places, confidence], dim=-1),
        query_indices=torch.arange(len(boxes)) + 7,
    )


def assert_same_people(found, expected):
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    for field in ("scores", "pred_classes", "pred_keypoints", "query_indices"):
        torch.testing.assert_close(found.get(field), expected.get(field))


def test_a_single_view_is_itself():
    view = people([*BOXES, BOXES[0]], [0.9, 0.5, 0.3, 0.3])
    assert_same_people(average_people([view]), view)


def test_keypoints_are_weighted_by_their_variance_and_the_rest_plainly():
    first = people(BOXES[:1], [0.8], sigma=0.1)
    second = people([[12, 12, 52, 92]], [0.4], sigma=0.3)
    averaged = average_people([first, second])
    torch.testing.assert_close(averaged.pred_boxes.tensor, torch.tensor([[11.0, 11, 51, 91]]))
    torch.testing.assert_close(averaged.scores, torch.tensor([0.6]))
    # Nine times the weight for a third of the deviation.
    place = (torch.tensor([30.0, 50.0]) * 9 + torch.tensor([32.0, 52.0])) / 10
    torch.testing.assert_close(averaged.pred_keypoints[0, 0], torch.tensor([*place, 0.8]))


def test_who_is_in_the_first_view_alone_stays_as_found():
    first = people(BOXES, [0.9, 0.5, 0.3], classes=[0, 0, 1])
    # Somebody else, somebody of another class, and one more whom the first view does not show.
    second = people(
        [[30, 60, 70, 99], BOXES[2], [90, 0, 110, 30]], [0.8, 0.7, 0.6], classes=[0, 0, 0]
    )
    assert_same_people(average_people([first, second]), first)


def test_an_order_that_other_views_change_is_told_anew():
    first = people(BOXES[:2], [0.6, 0.5])
    second = people([BOXES[1], BOXES[0]], [0.9, 0.2])
    averaged = average_people([first, second])
    torch.testing.assert_close(averaged.scores, torch.tensor([0.7, 0.4]))
    assert averaged.query_indices.tolist() == [8, 7]


def test_where_two_queries_found_a_person_the_confident_ones_meet():
    first = people([BOXES[0], BOXES[0]], [0.9, 0.1])
    second = people([BOXES[0], BOXES[0]], [0.1, 0.9])
    torch.testing.assert_close(average_people([first, second]).scores, torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("counts", [(0, 2), (2, 0), (0, 0)])
def test_views_without_anybody(counts):
    views = [people(BOXES[:count], [0.9, 0.5][:count]) for count in counts]
    assert_same_people(average_people(views), views[0])


@pytest.fixture(scope="module")
def crowd():
    return read_picture(SyntheticPeople(num_images=1, seed=78).path(0), "RGB")


@pytest.fixture(scope="module")
def packaged():
    return PosePredictor(confidence_threshold=0.1)


def with_views(predictor, *sizes, flip):
    mapper = DatasetMapperTTA(min_sizes=list(sizes), max_size=2000, flip=flip)
    return PosePredictor(
        predictor.model,
        min_size=predictor.min_size,
        max_size=predictor.max_size,
        confidence_threshold=predictor.confidence_threshold,
        tta_mapper=mapper,
    )


def test_one_view_of_the_usual_size_changes_nothing(packaged, crowd):
    once, expected = with_views(packaged, packaged.min_size, flip=False)(crowd), packaged(crowd)
    assert len(once) == len(expected) > 0
    np.testing.assert_allclose(once.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(once.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)


def mirrored_distance(predictor, image):
    """How far from each other, in pixels, keypoints of a picture and of its mirror image are."""
    found, mirrored = predictor(image), predictor(np.ascontiguousarray(image[:, ::-1]))
    keypoints = mirrored.keypoints[:, list(predictor.skeleton.flip_indices)]
    keypoints[..., 0] = image.shape[1] - keypoints[..., 0]
    distances = np.linalg.norm(found.keypoints[:, None] - keypoints[None], axis=-1)[..., :2]
    return np.median(distances.mean(axis=-1).min(axis=1))


def test_a_mirrored_view_makes_a_picture_and_its_mirror_image_agree(packaged, crowd):
    alone = mirrored_distance(packaged, crowd)
    both = mirrored_distance(with_views(packaged, packaged.min_size, flip=True), crowd)
    assert both < 0.2 * alone


def test_views_of_other_sizes_come_back_to_the_picture(packaged, crowd):
    expected = packaged(crowd)
    found = with_views(packaged, packaged.min_size, 448, flip=True)(crowd)
    first_of = {int(query): i for i, query in enumerate(expected.instances.query_indices)}
    sure = found.scores > 0.3
    order = [first_of[int(query)] for query in found.instances.query_indices[sure]]
    assert order
    distances = np.linalg.norm(found.keypoints[sure] - expected.keypoints[order], axis=-1)
    height = np.diff(expected.boxes_xyxy[order][:, 1::2], axis=1)
    assert 1e-3 < np.median(distances / height) < 0.05


def test_a_batch_gives_what_single_pictures_give(packaged, crowd):
    predict = with_views(packaged, packaged.min_size, flip=True)
    other = np.ascontiguousarray(crowd[::-1])
    for found, image in zip(predict([crowd, other]), (crowd, other), strict=True):
        np.testing.assert_allclose(found.keypoints, predict(image).keypoints, atol=0.02)


def test_attention_is_that_of_the_first_view(packaged, crowd):
    expected = packaged(crowd, return_attention=True)
    found = with_views(packaged, packaged.min_size, flip=True)(crowd, return_attention=True)
    first_of = {int(query): i for i, query in enumerate(expected.instances.query_indices)}
    order = [first_of[int(query)] for query in found.instances.query_indices]
    torch.testing.assert_close(found.attention.maps, expected.attention.maps[order])
    torch.testing.assert_close(found.attention.boxes_xyxy, expected.attention.boxes_xyxy[order])


def test_diverged_keypoints_are_an_error(crowd):
    predict = with_views(PosePredictor(), 384, flip=True)
    with torch.no_grad():
        for name, parameter in predict.model.named_parameters():
            if name.endswith("heads.coordinate_bias"):
                parameter[0, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="keypoints or their scores are NaN or infinite"):
        predict(crowd)


def test_pictures_need_no_wanted_size(packaged, crowd):
    image = torch.from_numpy(crowd.transpose(2, 0, 1).copy())
    mapper = DatasetMapperTTA(min_sizes=[384], max_size=576, flip=True)
    model = QueryPoseWithTTA(model=packaged.model, tta_mapper=mapper, skeleton=packaged.skeleton)
    with torch.no_grad():
        found, wanted = model([{"image": image}, {"image": image, "height": 50, "width": 60}])
    assert found["instances"].image_size == image.shape[1:]
    assert wanted["instances"].image_size == (50, 60)
    assert wanted["instances"].pred_boxes.tensor[:, 2].max() <= 60


def test_no_size_to_look_at_is_refused():
    cfg = model_zoo.get_config()
    cfg.merge_from_list(["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", ()])
    with pytest.raises(ValueError, match=r"TEST\.AUG\.MIN_SIZES is empty"):
        PosePredictor.from_config(cfg)
