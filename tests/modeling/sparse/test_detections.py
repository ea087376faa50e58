from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from detectron2.structures import Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from querypose.modeling.sparse.box_coordinates import keypoints_to_pixels
from querypose.modeling.sparse.detections import detect_people
from querypose.modeling.sparse.readout import DecodedPeople, KeypointReadout
from querypose.oks import pairwise_pose_oks

K = 4
SIZES = [(80, 100), (64, 64)]
OKS_SIGMAS = [0.4] * K


class Predictions:
    """Random predictions of two images, decoded on demand and counted."""

    def __init__(
        self,
        num_queries: int = 30,
        num_classes: int = 1,
        seed: int = 0,
        nms_oks_threshold: float = 1.0,
    ) -> None:
        self.readout = KeypointReadout(oks_sigmas=OKS_SIGMAS, nms_oks_threshold=nms_oks_threshold)
        generator = torch.Generator().manual_seed(seed)
        self.logits = 3 * torch.randn(2, num_queries, num_classes, generator=generator)
        top_left = 50 * torch.rand(2, num_queries, 2, generator=generator)
        sides = 5 + 40 * torch.rand(2, num_queries, 2, generator=generator)
        self.boxes = torch.cat([top_left, top_left + sides], dim=-1)
        self.coordinates = torch.rand(2, num_queries, K, 2, generator=generator) - 0.5
        self.sigmas = torch.rand(2, num_queries, K, 2, generator=generator)
        self.decoded = 0
        self.calls = 0

    def decode(self, query_indices: Sequence[Tensor]) -> DecodedPeople:
        self.calls += 1
        self.decoded += sum(len(index) for index in query_indices)
        for index in query_indices:
            assert index.tolist() == sorted(set(index.tolist()))
        coordinates, sigmas, boxes = (
            torch.cat([values[image, index] for image, index in enumerate(query_indices)])
            for values in (self.coordinates, self.sigmas, self.boxes)
        )
        scores = 1 - sigmas.mean(dim=-1)
        pixels = keypoints_to_pixels(coordinates, boxes)
        return DecodedPeople(torch.cat([pixels, scores[..., None]], dim=-1), scores.mean(dim=-1))

    def detect(self, max_detections: int, score_threshold: float = 0.0) -> list[Instances]:
        return detect_people(
            self.logits,
            self.boxes,
            self.decode,
            SIZES,
            max_detections=max_detections,
            score_thresholds=[score_threshold] * 2,
            suppress=self.readout.suppress,
        )

    def everything(self, max_detections: int, score_threshold: float = 0.0) -> list[list[int]]:
        """Per image the queries that decoding all and sorting would return, best first."""
        class_scores = self.logits.sigmoid().amax(dim=-1)
        scores = class_scores * (1 - self.sigmas.mean(dim=-1)).mean(dim=-1)
        chosen = []
        for image, (height, width) in enumerate(SIZES):
            candidates = [
                query
                for query, (left, top, right, bottom) in enumerate(self.boxes[image].tolist())
                if min(right, width) > max(left, 0) and min(bottom, height) > max(top, 0)
                if scores[image, query] >= score_threshold
            ]
            # Python's sort is stable: of equal scores the first query wins.
            candidates.sort(key=lambda query: -scores[image, query].item())
            chosen.append(self._without_duplicates(image, candidates)[:max_detections])
        return chosen

    def _without_duplicates(self, image: int, queries: list[int]) -> list[int]:
        if self.readout.nms_oks_threshold == 1:
            return queries
        pixels = keypoints_to_pixels(self.coordinates[image], self.boxes[image])
        (height, width), boxes = SIZES[image], self.boxes[image]
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        oks = pairwise_pose_oks(
            pixels, pixels, torch.tensor(OKS_SIGMAS), boxes=boxes, other_boxes=boxes
        )
        classes = self.logits[image].argmax(dim=-1)
        kept: list[int] = []
        for query in queries:
            rivals = [other for other in kept if classes[other] == classes[query]]
            if all(oks[query, rival] <= self.readout.nms_oks_threshold for rival in rivals):
                kept.append(query)
        return kept


def _assert_same_as_everything(predictions: Predictions, *limits: float) -> None:
    found = predictions.detect(*limits)
    expected = predictions.everything(*limits)
    class_scores, classes = predictions.logits.sigmoid().max(dim=-1)
    keypoint_scores = 1 - predictions.sigmas.mean(dim=-1)
    for image, (instances, queries) in enumerate(zip(found, expected, strict=True)):
        assert instances.query_indices.tolist() == queries
        assert instances.image_size == SIZES[image]
        boxes = predictions.boxes[image, queries]
        assert torch.equal(instances.pred_boxes.tensor, boxes)
        assert torch.equal(instances.pred_classes, classes[image, queries])
        scores = class_scores[image, queries] * keypoint_scores[image, queries].mean(dim=-1)
        torch.testing.assert_close(instances.scores, scores)
        pixels = keypoints_to_pixels(predictions.coordinates[image, queries], boxes)
        assert instances.pred_keypoints.shape == (len(queries), K, 3)
        torch.testing.assert_close(instances.pred_keypoints[..., :2], pixels)
        torch.testing.assert_close(
            instances.pred_keypoints[..., 2], keypoint_scores[image, queries]
        )


@pytest.mark.parametrize("max_detections", [1, 5, 20, 30, 100])
@pytest.mark.parametrize("score_threshold", [0.0, 0.3, 0.99999])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_people_are_those_of_decoding_every_query(max_detections, score_threshold, num_classes):
    predictions = Predictions(num_classes=num_classes)
    _assert_same_as_everything(predictions, max_detections, score_threshold)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_detections=st.integers(1, 12),
    levels=st.integers(1, 3),
    certain=st.booleans(),
)
def test_ties_are_broken_as_by_decoding_every_query(seed, max_detections, levels, certain):
    predictions = Predictions(num_queries=10, seed=seed)
    predictions.logits = predictions.logits.sign() * (predictions.logits.abs() % levels).floor()
    predictions.sigmas = (predictions.sigmas * levels).floor() / levels
    if certain:
        predictions.sigmas.zero_()
    _assert_same_as_everything(predictions, max_detections)


def test_a_certain_early_query_wins_a_tie_against_a_later_one():
    """Final scores tie at a score that the earlier query's class score only just reaches."""
    predictions = Predictions(num_queries=3)
    predictions.logits[:] = torch.tensor([0.0, -1.0, 1.0]).view(1, 3, 1)
    predictions.sigmas.zero_()
    # Query 2 falls exactly to the 0.5 of query 0, which has no uncertainty.
    predictions.sigmas[:, 2] = 1 - 0.5 / predictions.logits[0, 2].sigmoid().item()
    _assert_same_as_everything(predictions, 1)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_detections=st.integers(1, 12),
    score_threshold=st.sampled_from([0.0, 0.3]),
    num_classes=st.integers(1, 2),
    spread=st.sampled_from([0.02, 0.3, 1.0]),
)
def test_a_dropped_duplicate_costs_nobody_else_a_place(
    seed, max_detections, score_threshold, num_classes, spread
):
    predictions = Predictions(20, num_classes, seed, nms_oks_threshold=0.7)
    # Four persons, each found by five queries that are more or less alike.
    predictions.boxes = predictions.boxes[:, :4].repeat(1, 5, 1)
    shared = predictions.coordinates[:, :4].repeat(1, 5, 1, 1)
    predictions.coordinates = shared + spread * predictions.coordinates
    _assert_same_as_everything(predictions, max_detections, score_threshold)


def test_of_a_person_found_twice_the_better_pose_is_kept():
    predictions = Predictions(num_queries=4, nms_oks_threshold=0.7)
    predictions.boxes[:] = torch.tensor([5.0, 5.0, 45.0, 60.0])
    predictions.coordinates[:, 1:] = predictions.coordinates[:, :1]
    predictions.coordinates[:, 3] -= 1.0
    predictions.logits[:] = torch.tensor([0.0, 2.0, 1.0, -1.0]).view(1, 4, 1)
    predictions.sigmas[:] = 0.2
    assert [found.query_indices.tolist() for found in predictions.detect(2)] == [[1, 3]] * 2
    predictions.readout.nms_oks_threshold = 1.0
    assert [found.query_indices.tolist() for found in predictions.detect(2)] == [[1, 2]] * 2


def test_boxes_without_area_in_their_image_are_left_out():
    predictions = Predictions(num_queries=6)
    outside = [[-30, 5, -1, 40], [5, 200, 20, 260], [101, 0, 150, 50], [20, 20, 20, 60]]
    predictions.boxes[0, :4] = torch.tensor(outside, dtype=torch.float32)
    predictions.boxes[0, 4] = torch.tensor([-500.0, -500.0, 1.0, 1.0])
    found = predictions.detect(20)
    assert sorted(found[0].query_indices.tolist()) == [4, 5]
    assert len(found[1]) == 6
    _assert_same_as_everything(predictions, 20)


def test_without_candidates_nothing_is_decoded():
    predictions = Predictions()
    predictions.boxes += 1000
    found = predictions.detect(20)
    assert predictions.decoded == 0
    for instances in found:
        assert len(instances) == 0
        assert instances.pred_keypoints.shape == (0, K, 3)
        assert instances.pred_boxes.tensor.shape == (0, 4)


def test_an_image_without_candidates_beside_one_with_them():
    predictions = Predictions()
    predictions.boxes[0] += 1000
    assert [len(instances) for instances in predictions.detect(20)] == [0, 20]
    _assert_same_as_everything(predictions, 20)


def test_separated_class_scores_spare_most_queries():
    predictions = Predictions(num_queries=100)
    predictions.logits[:] = torch.linspace(-4, -60, 100).view(1, 100, 1)
    predictions.logits[0, ::20] = 4
    predictions.logits[1, 3] = 4
    predictions.sigmas *= 0.2
    predictions.detect(5)
    # Image 0 has five certain people, image 1 one and a tail that falls by half at each step.
    assert 2 * 5 <= predictions.decoded <= 2 * 5 + 5
    _assert_same_as_everything(predictions, 5)


def test_exactly_the_wanted_number_is_decoded_where_the_rest_cannot_reach_it():
    predictions = Predictions(num_queries=50)
    predictions.logits[:] = -8
    predictions.logits[:, 10:15] = 8
    predictions.sigmas[:] = 0.3
    found = predictions.detect(5)
    assert predictions.decoded == 2 * 5
    assert predictions.calls == 1
    assert [sorted(people.query_indices.tolist()) for people in found] == [[*range(10, 15)]] * 2


def test_each_query_is_decoded_at_most_once():
    predictions = Predictions()
    predictions.logits[:] = 0.5 + 0.01 * predictions.logits
    predictions.detect(3)
    assert predictions.calls > 1
    assert predictions.decoded <= 2 * 30


def test_threshold_spares_queries():
    predictions = Predictions(num_queries=40)
    predictions.detect(40, 0.9)
    # A final score never exceeds the class score.
    assert predictions.decoded == (predictions.logits.sigmoid() >= 0.9).sum()


BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("what", ["coordinates", "sigmas"])
def test_numbers_that_are_not_finite_are_refused(what, bad):
    predictions = Predictions()
    found = predictions.detect(20)[1].query_indices.tolist()
    getattr(predictions, what)[1, found[-1], 2, 1] = bad
    with pytest.raises(FloatingPointError, match="keypoints or their scores are NaN or infinite"):
        predictions.detect(20)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_quality_that_is_not_finite_is_refused(bad):
    predictions = Predictions()

    def decode(query_indices: Sequence[Tensor]) -> DecodedPeople:
        people = predictions.decode(query_indices)
        people.quality[-1] = bad
        return people

    with pytest.raises(FloatingPointError, match="keypoints or their scores are NaN or infinite"):
        detect_people(
            predictions.logits,
            predictions.boxes,
            decode,
            SIZES,
            max_detections=5,
            score_thresholds=[0.0, 0.0],
            suppress=predictions.readout.suppress,
        )


def test_who_is_not_decoded_may_be_anything():
    """The full model prunes queries; what became of them does not matter."""
    predictions = Predictions()
    expected = predictions.detect(20, 0.9)[0]
    unlikely = predictions.logits.sigmoid().amax(dim=-1) < 0.9
    predictions.coordinates[unlikely] = float("nan")
    found = predictions.detect(20, 0.9)[0]
    assert torch.equal(found.pred_keypoints, expected.pred_keypoints)
