from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import DatasetMapperTTA

from querypose import PosePredictor, model_zoo
from querypose.data.image import read_image
from querypose.inference.score_scale import ScoreScale
from querypose.inference.tta import PoseModelWithTTA
from querypose.synthetic import SyntheticPeople


@pytest.fixture(scope="module")
def crowd():
    return read_image(SyntheticPeople(num_images=1, seed=78).path(0), "RGB")


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


def test_scores_are_no_chances_that_were_measured_without_it():
    mapper = DatasetMapperTTA(min_sizes=[384], max_size=576, flip=True)
    assert PosePredictor().score_scale.is_measured
    assert not PosePredictor(tta_mapper=mapper).score_scale.is_measured
    scale = ScoreScale([(0.1, 0.5)])
    assert PosePredictor(tta_mapper=mapper, score_scale=scale).score_scale is scale


def test_one_view_of_the_usual_size_changes_nothing(packaged, crowd):
    once, expected = with_views(packaged, packaged.min_size, flip=False)(crowd), packaged(crowd)
    assert len(once) == len(expected) > 0
    np.testing.assert_allclose(once.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(once.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(once.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)


def test_a_mirrored_image_gives_mirrored_people(packaged, crowd):
    """With flipped views, an image and its mirror image have the same views."""
    predict = with_views(packaged, packaged.min_size, flip=True)
    found, mirrored = predict(crowd), predict(np.ascontiguousarray(crowd[:, ::-1]))
    keypoints = mirrored.keypoints[:, list(packaged.skeleton.flip_indices)]
    keypoints[..., 0] = crowd.shape[1] - keypoints[..., 0]
    assert len(found) == len(mirrored) > 0
    np.testing.assert_allclose(found.scores, mirrored.scores, atol=1e-3)
    distances = np.linalg.norm(found.keypoints - keypoints, axis=-1)
    assert np.median(distances) < 0.05


def test_views_of_other_sizes_are_mapped_back_to_the_image(packaged, crowd):
    expected = packaged(crowd)
    found = with_views(packaged, packaged.min_size, 448, flip=True)(crowd)
    assert len(found)
    distances = np.linalg.norm(found.keypoints[:1] - expected.keypoints, axis=-1)[..., :2]
    height = np.ptp(found.boxes_xyxy[0, 1::2])
    assert 1e-3 < distances.mean(axis=-1).min() / height < 0.05


def test_the_threshold_applies_to_the_merged_score(packaged, crowd):
    predict = with_views(packaged, packaged.min_size, flip=True)
    predict.confidence_threshold = 0.0
    everybody = predict(crowd)
    predict.confidence_threshold = threshold = float(np.median(everybody.scores))
    sure = predict(crowd)
    assert 0 < len(sure) < len(everybody)
    np.testing.assert_array_equal(sure.scores, everybody.scores[everybody.scores >= threshold])


def test_a_batch_gives_what_single_images_give(packaged, crowd):
    predict = with_views(packaged, packaged.min_size, flip=True)
    other = np.ascontiguousarray(crowd[::-1])
    for found, image in zip(predict([crowd, other]), (crowd, other), strict=True):
        np.testing.assert_allclose(found.keypoints, predict(image).keypoints, atol=0.02)


def test_attention_of_several_views_is_refused(packaged, crowd):
    with pytest.raises(
        ValueError, match=r"Attention and maps belong to one view.*TEST\.AUG\.ENABLED"
    ):
        with_views(packaged, packaged.min_size, flip=True)(crowd, return_attention=True)


def test_keypoints_that_are_nan_raise_an_error(crowd):
    predict = with_views(PosePredictor(), 384, flip=True)
    with torch.no_grad():
        for name, parameter in predict.model.named_parameters():
            if name.endswith("heads.coordinate_bias"):
                parameter[0, 1] = torch.nan
    with pytest.raises(FloatingPointError, match="keypoints or their scores are NaN or infinite"):
        predict(crowd)


def test_inputs_need_no_output_size(packaged, crowd):
    image = torch.from_numpy(crowd.transpose(2, 0, 1).copy())
    mapper = DatasetMapperTTA(min_sizes=[384], max_size=576, flip=True)
    model = PoseModelWithTTA(model=packaged.model, tta_mapper=mapper, skeleton=packaged.skeleton)
    with torch.no_grad():
        plain, resized = model([{"image": image}, {"image": image, "height": 50, "width": 60}])
    assert plain["instances"].image_size == image.shape[1:]
    assert resized["instances"].image_size == (50, 60)
    assert resized["instances"].pred_boxes.tensor[:, 2].max() <= 60


def test_missing_sizes_are_refused():
    cfg = model_zoo.get_config()
    cfg.merge_from_list(["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", ()])
    with pytest.raises(ValueError, match=r"TEST\.AUG\.MIN_SIZES is empty"):
        PosePredictor.from_config(cfg)
