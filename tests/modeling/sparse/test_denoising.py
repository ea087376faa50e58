from __future__ import annotations

import pytest
import torch

from querypose.modeling.sparse.denoising import BoxDenoiser
from querypose.modeling.targets import PersonTargets

FULL = {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
DENOISING = {"MODEL.QUERYPOSE.DENOISING.NUM_QUERIES": 5}
SIZE = (64, 96)


def _target(num_people: int, num_keypoints: int = 17) -> PersonTargets:
    corners = torch.rand(num_people, 2) * 40
    boxes = torch.cat([corners, corners + 5 + torch.rand(num_people, 2) * 30], dim=1)
    return PersonTargets(
        boxes,
        torch.zeros(num_people, dtype=torch.int64),
        torch.zeros(num_people, num_keypoints, 3),
        torch.tensor([96.0, 64.0, 96.0, 64.0]),
    )


class TestBoxDenoiser:
    @pytest.mark.parametrize("num_people", [1, 2, 3, 9])
    def test_people_share_the_queries_evenly(self, num_people):
        noised = BoxDenoiser(num_queries=5, noise=1.0)([_target(num_people)])
        counts = noised.people[0].bincount(minlength=num_people)
        assert noised.boxes.shape == (1, 5, 4)
        assert counts.sum() == 5
        assert counts.max() - counts.min() <= 1

    def test_which_people_of_a_crowd_are_drawn_changes(self):
        denoiser, target = BoxDenoiser(num_queries=2, noise=1.0), _target(20)
        drawn = torch.cat([denoiser([target]).people[0] for _ in range(50)])
        assert len(drawn.unique()) > 10

    @pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
    def test_noise_is_bounded_and_reaches_its_bounds(self, noise):
        target = _target(4)
        noised = BoxDenoiser(num_queries=2000, noise=noise)([target])
        expected = target.boxes[noised.people[0]]
        size = expected[:, 2:] - expected[:, :2]
        shift = (noised.boxes[0, :, :2] + noised.boxes[0, :, 2:] - expected[:, :2]) / 2
        shift = (shift - expected[:, 2:] / 2) / size
        growth = ((noised.boxes[0, :, 2:] - noised.boxes[0, :, :2]) / size).log2()
        for values, bound in ((shift, noise / 2), (growth, noise)):
            assert values.abs().max() <= bound + 1e-3
            assert values.min() <= -0.95 * bound + 1e-3
            assert values.max() >= 0.95 * bound - 1e-3

    def test_an_image_without_people_gets_boxes_that_belong_to_nobody(self):
        noised = BoxDenoiser(num_queries=3, noise=1.0)([_target(0), _target(2)])
        assert noised.boxes.shape == (2, 3, 4)
        assert noised.boxes[0].tolist() == [[0, 0, 96, 64]] * 3
        assert [len(people) for people in noised.people] == [0, 3]


@pytest.mark.parametrize("changes", [{}, FULL])
class TestDecoder:
    def _decode(self, decoder, extra_boxes=None):
        torch.manual_seed(0)
        features = {
            f"p{level}": torch.randn(2, 16, 64 // 2**level, 96 // 2**level) for level in range(2, 6)
        }
        return decoder.split(decoder(features, [SIZE, (50, 80)], extra_boxes))

    @torch.no_grad()
    def test_learned_queries_take_no_notice(self, changes, small_model):
        decoder = small_model(changes).decoder.eval()
        boxes = torch.tensor([[10.0, 10.0, 30.0, 40.0], [0.0, 0.0, 90.0, 60.0]]).expand(2, 2, 4)
        alone, nobody = self._decode(decoder)
        learned, extra = self._decode(decoder, boxes)
        assert [state.boxes.shape for state in nobody] == [(2, 0, 4)] * len(alone)
        assert [state.boxes.shape for state in extra] == [(2, 2, 4)] * len(alone)
        for with_extra, without in zip(learned, alone, strict=True):
            for one, other in zip(with_extra, without, strict=True):
                if other is not None:
                    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

    @torch.no_grad()
    def test_additional_queries_take_no_notice_of_each_other(self, changes, small_model):
        decoder = small_model(changes).decoder.eval()
        boxes = torch.tensor([[10.0, 10.0, 30.0, 40.0], [0.0, 0.0, 90.0, 60.0]]).repeat(2, 1, 1)
        _, before = self._decode(decoder, boxes)
        boxes[:, 1] = torch.tensor([40.0, 20.0, 60.0, 50.0])
        _, after = self._decode(decoder, boxes)
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(one.boxes[:, 0], other.boxes[:, 0])
            assert not torch.allclose(one.boxes[:, 1], other.boxes[:, 1])


class TestTraining:
    @pytest.mark.parametrize("changes", [DENOISING, DENOISING | FULL])
    @pytest.mark.parametrize("people", [(0, 0), (2, 0), (3, 9)])
    def test_losses_and_gradients_are_finite(self, changes, people, small_model, training_input):
        model = small_model(changes)
        losses = model([training_input(count, SIZE, seed=i) for i, count in enumerate(people)])
        for kind in ("bbox", "giou", "keypoint"):
            assert f"loss_{kind}_denoising" in losses
            assert (losses[f"loss_{kind}_denoising_0"] != 0) == any(people)
        sum(losses.values()).backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all(), name

    def test_noised_people_have_no_say_in_the_classes(self, small_model, training_input):
        model = small_model(DENOISING)
        losses = model([training_input(2, SIZE)])
        noised = sum(loss for name, loss in losses.items() if "denoising" in name)
        noised.backward()
        for stage in model.decoder.box_stages:
            assert stage.class_logits.weight.grad is None
            assert (stage.box_deltas.weight.grad != 0).any()
            assert (model.decoder.part_queries.weight.grad != 0).any()

    def test_a_person_found_again_costs_nothing(self, small_model, training_input):
        model = small_model(DENOISING)
        model.denoiser.noise = 0.0
        with torch.no_grad():
            for stage in model.decoder.box_stages:
                stage.box_deltas.weight.zero_()
                stage.box_deltas.bias.zero_()
        losses = model([training_input(2, SIZE)])
        for suffix in ("", "_0"):
            assert losses[f"loss_bbox_denoising{suffix}"].item() == pytest.approx(0, abs=1e-5)
            assert losses[f"loss_giou_denoising{suffix}"].item() == pytest.approx(0, abs=1e-5)
            assert losses[f"loss_bbox{suffix}"].item() > 0.1

    @torch.no_grad()
    def test_prediction_knows_nothing_of_it(self, small_model):
        image = [{"image": torch.rand(3, *SIZE) * 255}]
        torch.manual_seed(0)
        plain = small_model({}).eval()
        noised = small_model(DENOISING).eval()
        noised.load_state_dict(plain.state_dict())
        expected, actual = plain(image)[0]["instances"], noised(image)[0]["instances"]
        assert torch.equal(actual.pred_keypoints, expected.pred_keypoints)
        assert torch.equal(actual.scores, expected.scores)
