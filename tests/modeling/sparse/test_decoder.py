from __future__ import annotations

import pytest
import torch
from torch import nn

from querypose.modeling.sparse.box_coordinates import scale_boxes

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
SIZES = [(64, 96), (50, 80)]


@pytest.fixture
def features() -> dict[str, torch.Tensor]:
    """Feature maps of two images in a padded batch of 64 x 96 pixels."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"p{level}": torch.randn(2, 16, 64 // 2**level, 96 // 2**level, generator=generator)
        for level in range(2, 6)
    }


@pytest.fixture
def decoder(small_model):
    """A decoder with distinct proposal boxes, batch norms in inference."""

    def build(changes: dict[str, object]) -> nn.Module:
        decoder = small_model(changes).decoder.eval()
        with torch.no_grad():
            decoder.proposal_boxes.weight[:, :2].uniform_(0.3, 0.7)
            decoder.proposal_boxes.weight[:, 2:].uniform_(0.2, 0.6)
        return decoder

    return build


def _inputs_of(module: nn.Module, seen: list) -> None:
    module.register_forward_hook(lambda _, inputs, output: seen.append((inputs, output)))


def test_untrained_queries_start_from_the_unpadded_image(small_model, features):
    decoder = small_model().decoder
    seen: list = []
    _inputs_of(decoder.box_stages[0], seen)
    decoder(features, SIZES)
    boxes = seen[0][0][1]
    assert boxes.shape == (2, 12, 4)
    for image, (height, width) in enumerate(SIZES):
        assert boxes[image].tolist() == [[0, 0, width, height]] * 12


def test_proposal_boxes_are_center_and_size_relative_to_the_image(small_model, features):
    decoder = small_model().decoder
    with torch.no_grad():
        decoder.proposal_boxes.weight[3] = torch.tensor([0.5, 0.25, 0.5, 0.1])
    seen: list = []
    _inputs_of(decoder.box_stages[0], seen)
    decoder(features, SIZES)
    torch.testing.assert_close(
        seen[0][0][1][:, 3],
        torch.tensor([[24.0, 12.8, 72.0, 19.2], [20.0, 10.0, 60.0, 15.0]]),
    )


@pytest.mark.parametrize("changes", [LIGHT, FULL])
def test_the_next_stage_receives_the_boxes_detached(changes, decoder, features):
    decoder = decoder(changes)
    seen: list = []
    _inputs_of(decoder.box_stages[1], seen)
    states = decoder(features, SIZES)
    incoming = seen[0][0][1]
    assert torch.equal(incoming, states[0].boxes)
    assert not incoming.requires_grad
    assert states[0].boxes.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_full_model_feeds_keypoint_features_back_to_the_next_box_stage(training, decoder, features):
    decoder = decoder(FULL).train(training)
    before = decoder(features, SIZES)
    with torch.no_grad():
        decoder.keypoint_stages[0].convs[0].bias += 1
    after = decoder(features, SIZES)
    assert torch.equal(after[0].logits, before[0].logits)
    assert (after[0].queries - before[0].queries).abs().max() > 1e-3
    assert (after[1].logits - before[1].logits).abs().max() > 1e-4
    (gradient,) = torch.autograd.grad(
        after[1].boxes.sum() + after[1].logits.sum(),
        decoder.keypoint_stages[0].feedback.interaction.out_layer.weight,
    )
    assert (gradient != 0).any()


@pytest.mark.parametrize("training", [True, False])
def test_light_model_never_runs_a_keypoint_stage_for_its_boxes(training, decoder, features):
    decoder = decoder(LIGHT).train(training)
    seen: list = []
    for stage in decoder.keypoint_stages:
        _inputs_of(stage.convs, seen)
    states = decoder(features, SIZES)
    assert seen == []
    assert [state.keypoint_features for state in states] == [None, None]


@pytest.mark.parametrize("changes", [LIGHT, FULL])
@torch.no_grad()
def test_any_choice_of_queries_decodes_as_all_of_them_do(changes, decoder, features):
    decoder = decoder(changes)
    states = decoder(features, SIZES)
    everything = decoder.decode_keypoints(features, states, [[torch.arange(12)] * 2] * 2)
    # In any order, and at the second stage fewer than at the first.
    chosen = [
        [torch.tensor([11, 1, 4]), torch.tensor([0])],
        [torch.tensor([4, 11]), torch.tensor([0])],
    ]
    some = decoder.decode_keypoints(features, states, chosen)
    rows = [torch.tensor([11, 1, 4, 12]), torch.tensor([4, 11, 12])]
    assert len(some) == 2
    for part, whole, chosen_rows in zip(some, everything, rows, strict=True):
        for one, all_of_them in zip(part, whole, strict=True):
            torch.testing.assert_close(one, all_of_them[chosen_rows], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_part_queries_pass_from_stage_to_stage_with_their_instance(decoder, features):
    decoder = decoder(LIGHT)
    seen: list = []
    for stage in decoder.keypoint_stages:
        _inputs_of(stage, seen)
    states = decoder(features, SIZES)
    decoder.decode_keypoints(features, states, [[torch.tensor([2, 5]), torch.tensor([7])]] * 2)
    (first, output), (second, _) = seen
    initial = decoder.part_queries.weight
    assert torch.equal(first[2], initial.expand(3, *initial.shape))
    assert torch.equal(second[2], output.part_queries)


@torch.no_grad()
def test_keypoint_stages_see_the_queries_they_are_asked_for(decoder, features):
    decoder = decoder(LIGHT)
    seen: list = []
    _inputs_of(decoder.keypoint_stages[1], seen)
    states = decoder(features, SIZES)
    decoder.decode_keypoints(features, states, [[torch.tensor([3]), torch.tensor([3, 8])]] * 2)
    queries = states[1].queries
    expected = torch.stack([queries[0, 3], queries[1, 3], queries[1, 8]])
    assert torch.equal(seen[0][0][1], expected)


@pytest.mark.parametrize("changes", [LIGHT, FULL])
@torch.no_grad()
def test_keypoint_stages_pool_from_enlarged_boxes(changes, decoder, features):
    decoder = decoder(changes | {"MODEL.QUERYPOSE.KEYPOINT_BOX_SCALE": 1.25})
    seen: list = []
    _inputs_of(decoder.keypoint_pooler, seen)
    states = decoder(features, SIZES)
    decoder.decode_keypoints(features, states, [[torch.tensor([3]), torch.tensor([3, 8])]] * 2)
    (_, rois), _ = seen[-1]
    assert rois[:, 0].tolist() == [0, 1, 1]
    boxes = torch.cat([states[-1].boxes[0, [3]], states[-1].boxes[1, [3, 8]]])
    torch.testing.assert_close(rois[:, 1:], scale_boxes(boxes, 1.25))


@pytest.mark.parametrize("changes", [LIGHT, FULL])
def test_no_query_gives_empty_outputs_and_zero_gradients(changes, decoder, features):
    decoder = decoder(changes).train()
    states = decoder(features, SIZES)
    nothing = torch.zeros(0, dtype=torch.int64)
    outputs = decoder.decode_keypoints(features, states, [[nothing, nothing]] * 2)
    assert [output.coordinates.shape for output in outputs] == [(0, 17, 2)] * 2
    assert [output.scores.shape for output in outputs] == [(0, 17)] * 2
    sum(value.sum() for output in outputs for value in output).backward()
    for name, parameter in decoder.keypoint_stages.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad == 0).all(), name
    assert decoder.part_queries.weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL.FPN.OUT_CHANNELS": 24}, r"has 24 channels, but .*HIDDEN_DIM is 16"),
        ({"MODEL.ROI_HEADS.IN_FEATURES": ["p1"]}, r"no feature map 'p1'; .*\['p2', "),
        ({"MODEL.QUERYPOSE.NUM_ATTENTION_HEADS": 5}, r"HIDDEN_DIM \(16\) must be a multiple"),
        ({"MODEL.QUERYPOSE.PART_DIM": 34}, r"PART_DIM \(34\) must be a multiple"),
        ({"MODEL.QUERYPOSE.KEYPOINT_BOX_SCALE": 0.0}, r"BOX_SCALE must be positive, not 0\.0"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes, message, small_model):
    with pytest.raises(ValueError, match=message):
        small_model(changes)
