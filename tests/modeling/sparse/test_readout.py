from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.readout import DecodedPeople, KeypointReadout, expected_oks
from querypose.modeling.sparse.stage_state import StageState
from querypose.skeleton import COCO_SKELETON

K = 3
OKS_SIGMAS = (0.03, 0.07, 0.1)
# Of two images with four queries each, the readers' five.
QUERIES = [torch.tensor([0, 2, 3]), torch.tensor([1, 2])]
NOTHING = torch.zeros(0)


def _stage(seed: int) -> tuple[KeypointStageOutput, StageState]:
    generator = torch.Generator().manual_seed(seed)
    corners = 100 * torch.rand(2, 4, 2, generator=generator)
    boxes = torch.cat([corners, corners + torch.tensor([20.0, 40.0])], dim=-1)
    margin = torch.tensor([-5.0, -10.0, 5.0, 10.0])
    coordinates = torch.rand(5, K, 2, generator=generator) - 0.5
    sigmas = 0.01 + 0.3 * torch.rand(5, K, 2, generator=generator)
    state = StageState(NOTHING, boxes, boxes + margin, NOTHING, None)
    return KeypointStageOutput(coordinates, sigmas, NOTHING, NOTHING), state


def _read(outputs_and_states, **options: float) -> DecodedPeople:
    outputs, states = zip(*outputs_and_states, strict=True)
    return KeypointReadout(oks_sigmas=OKS_SIGMAS, **options)(outputs, states, QUERIES)


def _pixels(output: KeypointStageOutput, state: StageState) -> Tensor:
    boxes = torch.cat([state.keypoint_boxes[0, [0, 2, 3]], state.keypoint_boxes[1, [1, 2]]])
    # The enlarged boxes are 30 pixels wide and 60 high.
    return boxes[:, None, :2] + (output.coordinates + 0.5) * torch.tensor([30.0, 60.0])


def test_the_paper_reads_the_last_stage():
    stages = [_stage(0), _stage(1)]
    people = _read(stages)
    last = stages[-1][0]
    torch.testing.assert_close(people.keypoints[..., :2], _pixels(*stages[-1]))
    torch.testing.assert_close(people.keypoints[..., 2], 1 - last.sigmas.mean(dim=-1))
    torch.testing.assert_close(people.quality, 1 - last.sigmas.mean(dim=(1, 2)))


def test_the_last_stages_are_averaged_each_in_its_own_boxes():
    stages = [_stage(0), _stage(1), _stage(2)]
    alone, averaged = _read(stages), _read(stages, averaged_stages=2)
    expected = (_pixels(*stages[1]) + _pixels(*stages[2])) / 2
    torch.testing.assert_close(averaged.keypoints[..., :2], expected)
    assert torch.equal(averaged.keypoints[..., 2], alone.keypoints[..., 2])
    assert torch.equal(averaged.quality, alone.quality)


def test_quality_is_a_power_of_the_expected_oks():
    stages = [_stage(0), _stage(1)]
    deviations = stages[-1][0].sigmas * torch.tensor([30.0, 60.0])
    areas = torch.full((5,), 0.53 * 20 * 40)
    expected = expected_oks(deviations, areas, torch.tensor(OKS_SIGMAS))
    people = _read(stages, expected_oks_power=0.5)
    torch.testing.assert_close(people.quality, expected.sqrt())
    assert torch.equal(people.keypoints, _read(stages).keypoints)


def test_expected_oks_is_the_mean_oks_of_drawn_errors():
    deviations = torch.tensor([[[3.0, 8.0], [0.5, 0.1], [20.0, 2.0]]])
    area = 900.0
    errors = stats.norm.rvs(size=(200_000, K, 2), random_state=0) * deviations.numpy()
    variance = area * (2 * torch.tensor(OKS_SIGMAS)) ** 2
    drawn = torch.exp(-torch.from_numpy(errors).square().sum(dim=-1) / (2 * variance))
    expected = expected_oks(deviations, torch.tensor([area]), torch.tensor(OKS_SIGMAS))
    assert expected.item() == pytest.approx(drawn.mean().item(), abs=2e-3)


def test_expected_oks_is_scale_free_and_1_where_nothing_is_uncertain():
    sigmas = torch.tensor(OKS_SIGMAS)
    deviations, area = torch.rand(1, K, 2), torch.tensor([500.0])
    once = expected_oks(deviations, area, sigmas)
    torch.testing.assert_close(once, expected_oks(7 * deviations, 49 * area, sigmas))
    assert expected_oks(0 * deviations, area, sigmas).tolist() == [1.0]


def test_a_box_without_area_has_a_quality_that_is_a_number():
    empty = expected_oks(torch.rand(1, K, 2), torch.zeros(1), torch.tensor(OKS_SIGMAS))
    assert empty.item() == pytest.approx(0, abs=1e-3)


def test_the_config_names_the_options(tiny_cfg):
    cfg = tiny_cfg(
        {"MODEL.QUERYPOSE.AVERAGED_STAGES": 2, "MODEL.QUERYPOSE.EXPECTED_OKS_POWER": 0.4}
    )
    readout = KeypointReadout(cfg, COCO_SKELETON)
    assert readout.averaged_stages == 2
    assert readout.expected_oks_power == 0.4
    torch.testing.assert_close(readout.oks_sigmas, torch.tensor(COCO_SKELETON.sigmas))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("AVERAGED_STAGES", 0),
        ("AVERAGED_STAGES", 99),
        ("EXPECTED_OKS_POWER", -0.5),
        ("NMS_OKS_THRESHOLD", 1.5),
    ],
)
def test_what_makes_no_sense_is_refused(key, value, tiny_cfg):
    with pytest.raises(ValueError, match=key):
        KeypointReadout(tiny_cfg({f"MODEL.QUERYPOSE.{key}": value}), COCO_SKELETON)


def test_of_two_single_points_of_one_person_the_better_is_kept():
    readout = KeypointReadout(oks_sigmas=[0.062], nms_oks_threshold=0.7)
    keypoints = torch.tensor([[[[30.0, 12, 1]], [[30.5, 12, 1]], [[50.0, 12, 1]]]])
    boxes = torch.tensor([[[10.0, 10, 50, 90], [11, 10, 50, 90], [30, 10, 70, 90]]])
    scores = torch.tensor([[0.8, 0.9, 0.7]])
    left = readout.suppress(scores, keypoints, torch.zeros(1, 3), boxes)
    assert left.tolist() == [[-torch.inf, *scores[0, 1:].tolist()]]
