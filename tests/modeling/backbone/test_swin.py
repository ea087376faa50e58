from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import FPN, build_backbone
from timm.layers import DropPath

from querypose.config import add_querypose_config
from querypose.modeling.backbone.swin import SwinTransformer


@pytest.fixture
def small_swin() -> SwinTransformer:
    torch.manual_seed(0)
    network = SwinTransformer(
        embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def test_features_equal_the_reference(golden, load_released, assert_reference_features):
    reference = golden("swin_t_light", prefix="backbone.")
    bottom_up = SwinTransformer()
    backbone = FPN(bottom_up, list(bottom_up.output_shape()), out_channels=256)
    # The reference weights leave out the index buffers, whose values follow from the window.
    assert not any("relative_position_index" in name for name in reference.state_dict)
    missing, unexpected = load_released(backbone, reference)
    assert missing == unexpected == []
    assert_reference_features(backbone, reference)


def test_position_index_numbers_offsets_row_by_row():
    index = SwinTransformer(window_size=2).layers[0].blocks[0].attn.relative_position_index
    # Query cell (0, 0) sees key cell (1, 1) at offset (-1, -1), the first of nine.
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


@pytest.mark.parametrize("size", [(97, 131), (30, 33), (225, 160), (5, 3)])
def test_any_size_gives_rounded_up_maps(size, small_swin):
    with torch.no_grad():
        maps = small_swin(torch.randn(1, 3, *size))
    for name, shape in small_swin.output_shape().items():
        expected = [-(-side // shape.stride) for side in size]
        assert list(maps[name].shape) == [1, shape.channels, *expected]
        assert maps[name].isfinite().all()


def test_incomplete_patches_are_padded_with_zeros(small_swin):
    image = torch.randn(1, 3, 62, 93)
    with torch.no_grad():
        maps = small_swin(image)
        padded_maps = small_swin(F.pad(image, (0, 3, 0, 2)))
    for name, value in maps.items():
        torch.testing.assert_close(value, padded_maps[name])


def test_pictures_of_a_batch_do_not_mix(small_swin):
    images = torch.randn(3, 3, 96, 128)
    with torch.no_grad():
        together = small_swin(images)
        alone = [small_swin(image[None]) for image in images]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.cat([maps[name] for maps in alone]))


def test_shifted_windows_do_not_join_opposite_borders(small_swin):
    block = small_swin.layers[0].blocks[1]
    maps = torch.randn(1, 14, 14, 16)
    changed = maps.clone()
    changed[:, -1] = torch.randn(14, 16)
    with torch.no_grad():
        difference = (block(changed) - block(maps)).abs().amax(dim=(0, 2, 3))
    # Shifted by 3, the last window row is rows 10 to 13; rolled, rows 0 to 2 lie beside them.
    assert (difference[10:] > 1e-3).all()
    assert (difference[:10] < 1e-6).all()


def test_second_block_of_every_stage_is_shifted(small_swin):
    shifts = [[block.shift for block in stage.blocks] for stage in small_swin.layers]
    assert shifts == [[0, 3]] * 4


def test_drop_path_grows_linearly():
    network = SwinTransformer(embed_dim=16, num_heads=(1, 2, 4, 8), drop_path_rate=0.22)
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.02 * index for index in range(12)])


@pytest.mark.parametrize("num_heads", [(3, 6, 12), (3, 6, 12, 25)])
def test_heads_that_do_not_fit_the_stages_are_refused(num_heads):
    with pytest.raises(ValueError, match=r"NUM_HEADS.*4 stages.*\[96, 192, 384, 768\]"):
        SwinTransformer(num_heads=num_heads)


def test_checkpointing_changes_no_gradient(small_swin):
    recomputing = copy.deepcopy(small_swin)
    recomputing.use_checkpoint = True
    images = torch.randn(2, 3, 64, 96)
    for network in (small_swin, recomputing):
        sum(value.square().mean() for value in network.train()(images).values()).backward()
    for expected, actual in zip(small_swin.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_builder_gives_a_trainable_pyramid(parameters_without_gradient):
    cfg = get_cfg()
    add_querypose_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_swin_fpn_backbone"
    cfg.MODEL.SWIN.EMBED_DIM = 16
    cfg.MODEL.SWIN.NUM_HEADS = [1, 2, 4, 8]
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.0
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    backbone = build_backbone(cfg)
    assert backbone.size_divisibility == 32
    assert list(backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    images = torch.randn(2, 3, 64, 96)
    maps = backbone(images)
    for name in ("p2", "p3", "p4", "p5"):
        stride = backbone.output_shape()[name].stride
        assert maps[name].shape == (2, 24, 64 // stride, 96 // stride)
    assert parameters_without_gradient(backbone, images) == []
