import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY

from querypose.config import read_config
from querypose.modeling.dense.cells import (
    Cells,
    cell_positions,
    cells_to_pixels,
    is_in_map,
    map_size,
    pixels_to_cells,
)


def test_cell_lies_on_the_pixel_of_four_times_its_index():
    assert cells_to_pixels(torch.tensor(10.0)) == 40.5
    assert pixels_to_cells(torch.tensor(40.5)) == 10


def test_pixels_come_back():
    pixels = torch.rand(5, 3, 2) * 512
    torch.testing.assert_close(cells_to_pixels(pixels_to_cells(pixels)), pixels)


def test_map_of_an_odd_size_covers_the_image():
    assert map_size((512, 640)) == (128, 160)
    assert map_size((509, 513)) == (128, 129)


def test_in_map_includes_the_first_cell_and_excludes_the_size():
    points = torch.tensor([[0.0, 0.0], [-1e-3, 0.0], [9.99, 4.99], [10.0, 0.0], [0.0, 5.0]])
    assert is_in_map(points, (5, 10)).tolist() == [True, False, True, False, False]


def test_cell_positions_are_x_then_y():
    positions = cell_positions((4, 6))
    assert positions.shape == (4, 6, 2)
    assert positions[3, 5].tolist() == [5, 3]


def test_cells_of_a_mask_come_image_by_image_and_row_by_row():
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[1, 0, 3] = mask[0, 2, 1] = mask[0, 1, 2] = True
    cells = Cells.where(mask)
    assert cells.images.tolist() == [0, 0, 1]
    assert cells.positions.tolist() == [[2, 1], [1, 2], [3, 0]]


def test_cells_read_maps():
    maps = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    cells = Cells(torch.tensor([0, 1]), torch.tensor([3, 0]), torch.tensor([4, 2]))
    torch.testing.assert_close(cells.read(maps), torch.stack([maps[0, :, 3, 4], maps[1, :, 0, 2]]))


@pytest.mark.parametrize("config", ["quick/pinet_lite0", "quick/quality_pose_lite0"])
@pytest.mark.parametrize(
    ("backbone", "maps"),
    [
        ("build_resnet_backbone", "res4 of stride 16"),
        ("build_timm_fpn_backbone", "p2 of stride 4, p3 of stride 8, p4 of stride 16, p5 of"),
    ],
)
def test_a_backbone_of_other_maps_is_refused(config, backbone, maps):
    cfg = read_config(config, ["MODEL.BACKBONE.NAME", backbone])
    with torch.device("meta"), pytest.raises(ValueError, match=f"the backbone has {maps}"):
        META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
