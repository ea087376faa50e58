from __future__ import annotations

import math
import multiprocessing
from typing import NamedTuple

import pytest
import torch
from torch import distributed

from querypose.modeling.sparse.box_coordinates import keypoints_to_pixels, scale_boxes
from querypose.modeling.sparse.criterion import QueryPoseCriterion
from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.sparse.stage_state import StageState
from querypose.modeling.targets import PersonTargets

NUM_KEYPOINTS = 3
SIZE = torch.tensor([100.0, 80.0, 100.0, 80.0])


def _criterion(**weights: object) -> QueryPoseCriterion:
    focal = {"focal_alpha": 0.25, "focal_gamma": 2.0}
    ones = dict.fromkeys(("class_weight", "l1_weight", "giou_weight", "keypoint_weight"), 1.0)
    torch.manual_seed(0)
    return QueryPoseCriterion(
        matcher=HungarianMatcher(class_cost=2, l1_cost=5, giou_cost=2, **focal),
        **(ones | weights),
        **focal,
    )


class Case(NamedTuple):
    """Two images of 3 and 0 people, or as asked, with 4 queries each and two stages."""

    states: list[StageState]
    keypoints: list[KeypointStageOutput]
    query_indices: list[list[torch.Tensor]]
    targets: list[PersonTargets]

    def losses(self, criterion: QueryPoseCriterion) -> dict[str, torch.Tensor]:
        matches = criterion.match(self.states, self.targets)
        return criterion(self.states, self.keypoints, self.query_indices, matches, self.targets)


def _boxes(*shape: int) -> torch.Tensor:
    top_left = 40 * torch.rand(*shape, 2)
    return torch.cat([top_left, top_left + 10 + 25 * torch.rand(*shape, 2)], dim=-1)


def _target(count: int) -> PersonTargets:
    boxes = _boxes(count)
    points = keypoints_to_pixels(torch.rand(count, NUM_KEYPOINTS, 2) - 0.5, boxes)
    visibility = torch.full((count, NUM_KEYPOINTS, 1), 2.0)
    keypoints = torch.cat([points, visibility], dim=-1)
    return PersonTargets(boxes, torch.zeros(count, dtype=torch.int64), keypoints, SIZE)


def _case(*people: int, num_stages: int = 2) -> Case:
    torch.manual_seed(0)
    images = len(people)
    states, keypoints = [], []
    for _ in range(num_stages):
        logits = torch.randn(images, 4, 1, requires_grad=True)
        boxes = _boxes(images, 4).requires_grad_()
        states.append(StageState(logits, boxes, boxes.detach(), torch.zeros(images, 4, 8), None))
        coordinates = (torch.rand(4 * images, NUM_KEYPOINTS, 2) - 0.5).requires_grad_()
        sigmas = (0.1 + 0.8 * torch.rand(4 * images, NUM_KEYPOINTS, 2)).requires_grad_()
        nothing = torch.zeros(())
        keypoints.append(KeypointStageOutput(coordinates, sigmas, nothing, nothing))
    query_indices = [[torch.arange(4)] * images] * len(states)
    return Case(states, keypoints, query_indices, [_target(count) for count in people])


def test_focal_loss_by_hand():
    case, criterion = _case(3, 1, num_stages=1), _criterion(class_weight=2.0)
    matched = criterion.match(case.states, case.targets)[0]
    expected = 0.0
    for image, (queries, _) in enumerate(matched):
        for query in range(4):
            probability = torch.sigmoid(case.states[0].logits[image, query, 0]).item()
            if query in queries.tolist():
                expected -= 0.25 * (1 - probability) ** 2 * math.log(probability)
            else:
                expected -= 0.75 * probability**2 * math.log(1 - probability)
    assert case.losses(criterion)["loss_ce"].item() == pytest.approx(2 * expected / 4, rel=1e-5)


def test_only_the_class_of_the_matched_person_is_positive():
    case, criterion = _case(1, num_stages=1), _criterion()
    logits = torch.full((1, 4, 3), -20.0)
    state = case.states[0]._replace(logits=logits)
    target = case.targets[0]._replace(classes=torch.tensor([2]))
    query = criterion.match([state], [target])[0][0][0].item()
    logits[0, query, 2] = 20.0
    case = case._replace(states=[state], targets=[target])
    assert case.losses(criterion)["loss_ce"].item() == pytest.approx(0, abs=1e-6)


def test_box_losses_by_hand():
    case, criterion = _case(3, 1, num_stages=1), _criterion(l1_weight=5.0, giou_weight=2.0)
    l1 = giou_loss = 0.0
    matched = criterion.match(case.states, case.targets)[0]
    for image, (queries, people) in enumerate(matched):
        for query, person in zip(queries, people, strict=True):
            box = case.states[0].boxes[image, query].tolist()
            truth = case.targets[image].boxes[person].tolist()
            l1 += sum(abs(a - b) / s for a, b, s in zip(box, truth, SIZE.tolist(), strict=True))
            giou_loss += 1 - _giou(box, truth)
    losses = case.losses(criterion)
    assert losses["loss_bbox"].item() == pytest.approx(5 * l1 / 4, rel=1e-5)
    assert losses["loss_giou"].item() == pytest.approx(2 * giou_loss / 4, rel=1e-5)


def _giou(first: list[float], second: list[float]) -> float:
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    sides = [min(first[i + 2], second[i + 2]) - max(first[i], second[i]) for i in (0, 1)]
    hull = [max(first[i + 2], second[i + 2]) - min(first[i], second[i]) for i in (0, 1)]
    overlap = max(sides[0], 0) * max(sides[1], 0)
    union = sum(areas) - overlap
    return overlap / union - (hull[0] * hull[1] - union) / (hull[0] * hull[1])


def _keypoint_loss_by_hand(case: Case, criterion: QueryPoseCriterion, stage: int) -> float:
    """A supervised keypoint after the other, over people times keypoints."""
    total = 0.0
    matched = criterion.match(case.states, case.targets)[stage]
    for image, (queries, people) in enumerate(matched):
        for query, person in zip(queries, people, strict=True):
            left, top, right, bottom = case.states[stage].boxes[image, query].tolist()
            for keypoint in range(NUM_KEYPOINTS):
                x, y, visible = case.targets[image].keypoints[person, keypoint].tolist()
                target = ((x - left) / (right - left) - 0.5, (y - top) / (bottom - top) - 0.5)
                if visible == 0 or max(map(abs, target)) > 0.5:
                    continue
                row = 4 * image + int(query)
                total += criterion.keypoint_loss(
                    case.keypoints[stage].coordinates[row, keypoint][None],
                    case.keypoints[stage].sigmas[row, keypoint][None],
                    torch.tensor([target]),
                ).item()
    num_people = max(1, sum(len(target.boxes) for target in case.targets))
    return total / (num_people * NUM_KEYPOINTS)


def test_keypoint_loss_by_hand_and_stages_by_suffix():
    case, criterion = _case(3, 1), _criterion(keypoint_weight=3.0)
    losses = case.losses(criterion)
    names = ["loss_ce", "loss_bbox", "loss_giou", "loss_keypoint"]
    assert sorted(losses) == sorted([*names, *(f"{name}_0" for name in names)])
    for stage, name in enumerate(["loss_keypoint_0", "loss_keypoint"]):
        expected = 3 * _keypoint_loss_by_hand(case, criterion, stage)
        assert expected != 0
        assert losses[name].item() == pytest.approx(expected, rel=1e-4)


def _perfect_boxes(case: Case) -> Case:
    """Every person has a query whose box is the person's."""
    boxes = case.states[0].boxes.detach().clone()
    for image, target in enumerate(case.targets):
        boxes[image, : len(target.boxes)] = target.boxes
    state = case.states[0]._replace(boxes=boxes.requires_grad_(), keypoint_boxes=boxes.detach())
    return case._replace(states=[state])


@pytest.mark.parametrize("reason", ["unlabeled", "outside"])
def test_unlabeled_and_outside_keypoints_teach_nothing(reason):
    case, criterion = _perfect_boxes(_case(2, num_stages=1)), _criterion()
    if reason == "unlabeled":
        case.targets[0].keypoints[1, 2, 2] = 0
    else:
        left, top = case.targets[0].boxes[1, :2].tolist()
        case.targets[0].keypoints[1, 2, :2] = torch.tensor([left - 0.1, top + 1])
    case.losses(criterion)["loss_keypoint"].backward()
    for values in (case.keypoints[0].coordinates, case.keypoints[0].sigmas):
        taught = (values.grad != 0).any(dim=-1)
        expected = torch.zeros(4, NUM_KEYPOINTS, dtype=torch.bool)
        expected[:2] = True
        expected[1, 2] = False
        assert torch.equal(taught, expected)


def test_keypoints_on_the_edge_and_occluded_ones_count():
    case, criterion = _perfect_boxes(_case(1, num_stages=1)), _criterion()
    case.targets[0].keypoints[0, 0] = torch.tensor([*case.targets[0].boxes[0, :2], 1.0])
    case.losses(criterion)["loss_keypoint"].backward()
    assert (case.keypoints[0].coordinates.grad[0, 0] != 0).all()


def test_keypoint_loss_leaves_the_boxes_alone():
    case = _case(3, 1, num_stages=1)
    loss = case.losses(_criterion())["loss_keypoint"]
    (gradient,) = torch.autograd.grad(loss, case.states[0].boxes, allow_unused=True)
    assert gradient is None


def test_only_matched_queries_need_to_be_decoded():
    case, criterion = _case(3, 1), _criterion()
    matches = criterion.match(case.states, case.targets)
    chosen = [[queries for queries, _ in stage] for stage in matches]
    rows = [torch.cat([stage[0], stage[1] + 4]) for stage in chosen]
    assert len(rows[0]) == len(rows[1]) == 4
    some = [
        output._replace(coordinates=output.coordinates[kept], sigmas=output.sigmas[kept])
        for output, kept in zip(case.keypoints, rows, strict=True)
    ]
    expected = case.losses(criterion)
    actual = case._replace(keypoints=some, query_indices=chosen).losses(criterion)
    for name, loss in expected.items():
        torch.testing.assert_close(actual[name], loss)


def test_nobody_gives_finite_losses_over_one_person():
    case, criterion = _case(0, 0), _criterion()
    losses = case.losses(criterion)
    probability = case.states[1].logits.sigmoid()
    expected = -(0.75 * probability**2 * (1 - probability).log()).sum()
    torch.testing.assert_close(losses["loss_ce"], expected)
    for name in ("loss_bbox", "loss_giou", "loss_keypoint"):
        assert losses[name].item() == losses[f"{name}_0"].item() == 0
    sum(losses.values()).backward()
    assert all((parameter.grad == 0).all() for parameter in criterion.parameters())


def test_keypoints_are_learned_in_the_box_that_they_are_looked_for_in():
    """A keypoint beyond the box counts where the enlarged one holds it."""
    case, criterion = _case(1, num_stages=1), _criterion()
    state, target = case.states[0], case.targets[0]
    left, top, right, bottom = target.boxes[0].tolist()
    target.keypoints[:, :, 0] = right + 0.1 * (right - left)
    target.keypoints[:, :, 1] = (top + bottom) / 2
    exact = target.boxes.expand_as(state.boxes)
    losses = []
    for scale in (1.0, 1.25):
        state = state._replace(boxes=exact, keypoint_boxes=scale_boxes(exact, scale))
        matches = [[(torch.tensor([0]), torch.tensor([0]))]]
        losses.append(criterion([state], case.keypoints, case.query_indices, matches, case.targets))
    assert losses[0]["loss_keypoint"] == 0
    assert losses[1]["loss_keypoint"] != 0
    assert losses[0]["loss_giou"] == losses[1]["loss_giou"]


def test_an_image_without_people_adds_its_class_loss_alone():
    mixed, criterion = _case(3, 0, num_stages=1), _criterion()
    alone = Case(
        [StageState(*(value[:1] for value in mixed.states[0][:4]), None)],
        [
            mixed.keypoints[0]._replace(
                coordinates=mixed.keypoints[0].coordinates[:4], sigmas=mixed.keypoints[0].sigmas[:4]
            )
        ],
        [mixed.query_indices[0][:1]],
        mixed.targets[:1],
    )
    actual, expected = mixed.losses(criterion), alone.losses(criterion)
    for name in ("loss_bbox", "loss_giou", "loss_keypoint"):
        torch.testing.assert_close(actual[name], expected[name])
    assert actual["loss_ce"] > expected["loss_ce"]


def _count_in_process(rank: int, folder: str, results: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    losses = _case((3, 0)[rank], num_stages=1).losses(_criterion())
    results.put((rank, losses["loss_ce"].item()))
    distributed.barrier()
    distributed.destroy_process_group()


def test_people_are_averaged_over_processes(tmp_path):
    """Ranks with 3 and 0 people both divide by 1.5."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_count_in_process, args=(rank, str(tmp_path), results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    losses = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    for rank, count in enumerate((3, 0)):
        alone = _case(count, num_stages=1).losses(_criterion())["loss_ce"].item()
        assert losses[rank] == pytest.approx(alone * max(count, 1) / 1.5, rel=1e-5)


def test_attention_weight_adds_a_loss_for_every_stage_and_leaves_the_others_alone():
    case = _case(3, 0)
    attention = torch.full((8, 2, 6, 6), 1 / 36)
    everything = torch.tensor([0.0, 0, 100, 80]).expand(2, 4, 4)
    case = case._replace(
        states=[
            state._replace(boxes=everything, keypoint_boxes=everything) for state in case.states
        ],
        keypoints=[output._replace(attention=attention) for output in case.keypoints],
    )
    plain = case.losses(_criterion())
    losses = case.losses(_criterion(attention_weight=2.0, part_of_keypoint=(1, 0, 1)))
    assert losses.keys() - plain.keys() == {"loss_attention", "loss_attention_0"}
    for name, loss in plain.items():
        torch.testing.assert_close(losses[name], loss)
    # Every keypoint lies inside the box, and every cell is as likely.
    assert losses["loss_attention"].item() == pytest.approx(2 * math.log(36), rel=1e-5)
