from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from querypose.inference.prediction import PartAttention, PosePrediction
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON, Skeleton
from querypose.visualization import PoseVisualizer, draw_attention, part_name, pose_sheet
from querypose.visualization.canvas import person_color
from querypose.visualization.labels import place_label

METADATA = Metadata(thing_classes=["person"], **COCO_SKELETON.metadata())
LINE = Skeleton(
    ("left_end", "right_end", "far"), edges=(("left_end", "right_end"), ("right_end", "far"))
)
LINE_METADATA = Metadata(**LINE.metadata())


def people(count, size=(480, 640), num_keypoints=17, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform((20, 20), (size[1] - 150, size[0] - 250), (count, 2))
    # All sizes differ, so that the order of drawing does not depend on the order of the people.
    box_sizes = np.array([(120, 230)]) - 5 * np.arange(count)[:, None]
    boxes = np.concatenate([corners, corners + box_sizes], axis=1)
    inside = corners[:, None] + rng.uniform(0, 1, (count, num_keypoints, 2)) * box_sizes[:, None]
    keypoints = np.concatenate([inside, np.full((count, num_keypoints, 1), 0.9)], axis=2)
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.linspace(0.9, 0.5, count),
        pred_classes=torch.zeros(count, dtype=torch.long),
        pred_keypoints=torch.tensor(keypoints, dtype=torch.float32),
    )


def black(size=(480, 640)):
    return np.zeros((*size, 3), np.uint8)


def horizontal_limb(score=0.9):
    """A person whose only visible limb goes from (20, 40) to (80, 40)."""
    return Instances(
        (100, 100),
        pred_boxes=Boxes(torch.tensor([[10.0, 10, 90, 90]])),
        scores=torch.tensor([0.8]),
        pred_classes=torch.tensor([0]),
        pred_keypoints=torch.tensor([[[20.0, 40, 0.9], [80, 40, score], [50, 80, 0.1]]]),
    )


def draw(instances, metadata=METADATA, size=(480, 640), **options):
    visualizer = PoseVisualizer(black(size), metadata, **options)
    return visualizer.draw_instance_predictions(instances).get_image()


def test_a_limb_is_drawn_where_its_keypoints_are_and_low_scores_are_not():
    drawn = draw(horizontal_limb(), LINE_METADATA, (100, 100), draw=["skeleton"])
    ink = drawn.sum(axis=2)
    assert drawn[39:41, 50].any(axis=-1).all()
    np.testing.assert_allclose(np.average(np.arange(100) + 0.5, weights=ink.sum(1)), 40, atol=0.3)
    np.testing.assert_allclose(np.average(np.arange(100) + 0.5, weights=ink.sum(0)), 50, atol=0.3)
    assert not ink[60:].any()  # nothing at or towards the keypoint that scores 0.1
    missing = draw(horizontal_limb(score=0.69), LINE_METADATA, (100, 100), draw=["skeleton"])
    assert not missing[:, 50:].any()
    shown = draw(
        horizontal_limb(score=0.69),
        LINE_METADATA,
        (100, 100),
        draw=["skeleton"],
        keypoint_threshold=0.5,
    )
    np.testing.assert_array_equal(shown, drawn)


def test_limbs_have_the_color_of_their_side():
    left_arm = next(
        color
        for start, end, color in METADATA.keypoint_connection_rules
        if (start, end) == ("left_shoulder", "left_elbow")
    )
    right_arm = next(
        color
        for start, end, color in METADATA.keypoint_connection_rules
        if (start, end) == ("right_shoulder", "right_elbow")
    )
    drawn = draw(people(1), draw=["skeleton"])
    colors = {tuple(color) for color in drawn.reshape(-1, 3).tolist()}
    assert {left_arm, right_arm} <= colors and left_arm != right_arm


def test_a_box_is_drawn_on_the_outermost_pixels_it_covers():
    drawn = draw(horizontal_limb(), LINE_METADATA, (100, 100), draw=["boxes"])
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 89, 10, 89)
    assert tuple(drawn[10, 50]) == person_color(0)


def test_lines_are_wider_on_larger_people():
    def thickness(size):
        keypoints = np.array([[[0.1, 0.5, 1], [0.9, 0.5, 1], [0, 0, 0]]]) * (size, size, 1)
        visualizer = PoseVisualizer(black((size, size)), LINE_METADATA, draw=["skeleton"])
        boxes = np.array([[0, 0, size, size]])
        drawn = visualizer.overlay_instances(boxes=boxes, keypoints=keypoints).get_image()
        return np.count_nonzero(drawn[:, size // 2].any(axis=-1))

    assert thickness(60) < thickness(300) < thickness(600)


def test_a_tracked_person_keeps_a_color():
    instances = people(3)
    instances.track_ids = torch.tensor([7, 8, 9])
    drawn = draw(instances, draw=["boxes"])
    turned = draw(instances[torch.tensor([2, 0, 1])], draw=["boxes"])
    np.testing.assert_array_equal(drawn, turned)
    assert not np.array_equal(drawn, draw(people(3), draw=["boxes"]))


def test_twenty_people_have_twenty_colors():
    colors = np.array([person_color(index) for index in range(20)])
    distances = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 20
    assert np.abs(np.diff(colors, axis=0)).sum(-1).min() > 150


def test_the_input_image_stays_unchanged_and_nobody_means_no_drawing():
    image = black() + 9
    drawn = PoseVisualizer(image, METADATA).draw_instance_predictions(people(4)).get_image()
    assert (image == 9).all() and (drawn != 9).any()
    np.testing.assert_array_equal(
        PoseVisualizer(image, METADATA).draw_instance_predictions(people(0)).get_image(), image
    )


def test_coordinates_far_outside_do_not_fail():
    instances = people(2)
    instances.pred_keypoints[0, :, :2] = 1e9
    instances.pred_keypoints[1, 3, :2] = -1e6
    assert draw(instances, draw=["skeleton", "parts"]).shape == (480, 640, 3)


def test_parts_are_areas_of_their_own_colors():
    drawn = draw(people(1), draw=["parts"])
    colors = {tuple(color) for color in drawn.reshape(-1, 3).tolist()}
    wanted = [np.round(np.array(person_color(part)) * 0.4) for part in range(7)]
    near = [min(np.abs(np.array(c) - w).max() for c in colors) for w in wanted]
    assert np.count_nonzero(np.array(near) <= 1) >= 5  # later parts may hide earlier ones


def test_an_unknown_drawing_is_refused():
    with pytest.raises(ValueError, match=r"not \['hats'\]"):
        PoseVisualizer(black(), METADATA, draw=["boxes", "hats"])


def test_annotations_are_drawn_through_detectron2s_interface(tmp_path):
    person = {
        "bbox": [20, 20, 60, 60],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "keypoints": [20, 40, 2, 80, 40, 2, 0, 0, 0],
    }
    metadata = Metadata(thing_classes=["person"], **LINE.metadata())
    output = PoseVisualizer(black((100, 100)), metadata).draw_dataset_dict(
        {"annotations": [person]}
    )
    assert output.get_image()[39:41, 50].any()
    output.save(str(tmp_path / "drawn.png"))
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "drawn.png")), output.get_image()
    )


def test_it_is_much_faster_than_matplotlib():
    """The reason for drawing with OpenCV."""
    instances = people(5)

    def seconds(visualizer):
        start = time.perf_counter()
        visualizer(black(), METADATA).draw_instance_predictions(instances).get_image()
        return time.perf_counter() - start

    ours = min(seconds(PoseVisualizer) for _ in range(5))
    assert 5 * ours < min(seconds(Visualizer) for _ in range(2))


def test_labels_avoid_one_another_and_stay_inside():
    taken = []
    for _ in range(5):
        left, top = place_label((100, 100, 180, 200), (40, 20), taken, (480, 640))
        for other in taken:
            apart = (
                left >= other[2] or left + 40 <= other[0] or top >= other[3] or top + 20 <= other[1]
            )
            assert apart
        taken.append((left, top, left + 40, top + 20))
    for box in ((-50, -50, 20, 20), (620, 470, 700, 500)):
        left, top = place_label(box, (40, 20), [], (480, 640))
        assert 0 <= left <= 600 and 0 <= top <= 460
    assert place_label((0, 0, 5, 5), (40, 20), [], (10, 10)) == (0, 0)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (COCO_SKELETON.parts[0], "nose + eyes + ears"),
        (COCO_SKELETON.parts[1], "shoulders"),
        (COCO_SKELETON.parts[2], "left elbow + wrist"),
        (CROWDPOSE_SKELETON.parts[0], "head + neck"),
        (("left_ear",), "left ear"),
        (("nose", "left_eye"), "nose + left eye"),
        (("tail_tip",), "tail tip"),
        (("leftEye", "rightEye"), "eyes"),
        (("L-Elbow", "L-Wrist"), "left elbow + wrist"),
    ],
)
def test_parts_have_short_names(part, name):
    assert part_name(part) == name


def prediction_with_attention(box, cell):
    """One person; every map is 1 at one cell (row, column) of 28 x 28, else 0."""
    maps = torch.zeros(1, 7, 28, 28)
    maps[(0, slice(None), *cell)] = 1
    boxes = torch.tensor([box])
    return PosePrediction(people(1), COCO_SKELETON, PartAttention(maps, boxes, 5))


def test_attention_is_drawn_where_the_map_is_high():
    image = black() + 100
    prediction = prediction_with_attention([100.0, 100, 240, 240], (7, 21))
    drawn = draw_attention(image, prediction, tile_size=(140, 140))
    assert drawn.shape == (168, 8 * 144, 3)
    for tile in range(8):
        body = drawn[24:164, tile * 144 : tile * 144 + 140]
        changed = np.nonzero((body != 100).any(axis=2))
        if tile == 0:
            assert not len(changed[0])
        else:
            # Cell (7, 21) of 5 pixels has its center at 5 * 7.5 and 5 * 21.5.
            assert abs(changed[0].mean() + 0.5 - 37.5) < 1 and abs(changed[1].mean() - 107) < 1


def test_attention_of_many_parts_takes_rows_of_equal_length():
    skeleton = replace(COCO_SKELETON, parts=())
    attention = PartAttention(torch.ones(1, 17, 28, 28), torch.tensor([[0.0, 0, 90, 90]]), 5)
    prediction = PosePrediction(people(1), skeleton, attention)
    drawn = draw_attention(black(), prediction, tile_size=(90, 90))
    # The crop and seventeen maps.
    assert drawn.shape == (2 * 118, 9 * 94, 3)


def test_attention_is_drawn_within_the_image_alone():
    image = np.full((480, 640, 3), (200, 0, 0), np.uint8)
    # The left half of the box, and of the map, is beside the image.
    prediction = prediction_with_attention([-70.0, 0, 70, 140], (14, 21))
    drawn = draw_attention(image, prediction, tile_size=(140, 70))
    assert drawn.shape == (168, 8 * 74, 3)
    assert (drawn[24:164, :70] == (200, 0, 0)).all()
    changed = np.nonzero((drawn[24:164, 74:144] != (200, 0, 0)).any(axis=2))
    # Cell (14, 21) of 5 pixels.
    assert abs(changed[0].mean() + 0.5 - 72.5) < 1 and abs(changed[1].mean() + 0.5 - 37.5) < 1


@pytest.mark.parametrize(
    ("box", "shape"),
    [([100.0, 100, 200, 300], (141, 71)), ([100.0, 100, 400, 200], (58, 173))],
)
def test_attention_crops_have_the_shape_of_the_box(box, shape):
    image = np.full((480, 640, 3), 250, np.uint8)
    height, width = shape
    drawn = draw_attention(image, prediction_with_attention(box, (0, 0)), tile_size=(100, 100))
    assert (drawn[24 : 24 + height, :width] == 250).all()
    assert (drawn[24 + height : 28 + height, :width] == 255).all()
    assert drawn.shape[1] % (width + 4) == 0 and drawn.shape[1] <= 9 * 104


def test_attention_of_a_very_narrow_box_shows_what_is_beside_it():
    image = np.full((480, 640, 3), 250, np.uint8)
    image[:, 100:110] = 10
    drawn = draw_attention(
        image, prediction_with_attention([100.0, 100, 110, 300], (0, 0)), tile_size=(100, 100)
    )
    crop = drawn[24:165, :71]
    assert (crop[:, [0, -1]] == 250).all() and (crop[:, 35] == 10).all()


def test_attention_of_people_of_different_shapes():
    maps = torch.ones(2, 7, 28, 28)
    boxes = torch.tensor([[0.0, 0, 100, 200], [0, 0, 200, 100]])
    prediction = PosePrediction(people(2), COCO_SKELETON, PartAttention(maps, boxes, 5))
    drawn = draw_attention(black(), prediction, tile_size=(100, 100))
    # Eight tiles of 71 x 141 in one row; of 141 x 71 in two rows of four.
    assert drawn.shape == (141 + 28 + 2 * (71 + 28), 8 * 75, 3)
    assert (drawn[169:, 4 * 145 :] == 255).all()


def test_attention_needs_maps_and_people():
    with pytest.raises(ValueError, match="return_attention=True"):
        draw_attention(black(), PosePrediction(people(1), COCO_SKELETON))
    with pytest.raises(ValueError, match="nobody"):
        draw_attention(black(), prediction_with_attention([0.0, 0, 9, 9], (0, 0)), people=[])


def test_a_sheet_holds_every_image_in_order_and_shape():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    sizes = [(100, 200), (300, 150), (50, 80), (240, 240), (10, 400)]
    images = [
        np.full((*size, 3), color, np.uint8) for size, color in zip(sizes, colors, strict=True)
    ]
    sheet = pose_sheet(images, width=500, row_height=120)
    assert sheet.shape[1] == 500
    first_seen = []
    for (height, width), color in zip(sizes, colors, strict=True):
        rows, columns = np.nonzero((sheet == color).all(axis=2))
        shape = (np.ptp(columns) + 1) / (np.ptp(rows) + 1)
        assert shape == pytest.approx(width / height, rel=0.05)
        first_seen.append((rows.min(), columns.min()))
    assert first_seen == sorted(first_seen)


@pytest.mark.parametrize("count", range(1, 25))
def test_tiles_of_a_sheet_keep_their_height(count):
    images = [np.zeros((90, 60 + 23 * (index % 9), 3), np.uint8) for index in range(count)]
    sheet = pose_sheet(images, width=900, row_height=120)
    is_gap = (sheet == 255).all(axis=(1, 2))
    starts = np.flatnonzero(np.diff(np.concatenate([[True], is_gap]).astype(int)) == -1)
    ends = [*np.flatnonzero(np.diff(is_gap.astype(int)) == 1) + 1, len(sheet)]
    heights = np.array(ends) - starts
    assert heights.min() >= 100 and heights.max() <= 210


@pytest.mark.parametrize(("count", "rows"), [(4, 1), (8, 1), (12, 2), (30, 4)])
def test_rows_of_a_sheet_are_filled_evenly(count, rows):
    images = [np.full((90, 90, 3), index + 1, np.uint8) for index in range(count)]
    sheet = pose_sheet(images, width=900, row_height=120)
    # Each row's first tile starts at the left edge; white lies between rows.
    firsts = [value for value in np.unique(sheet[:, 0, 0]) if value < 255]
    assert len(firsts) == rows
    sizes = np.diff([*firsts, count + 1])
    assert sizes.max() - sizes.min() <= 1
    assert (sheet == 255).all(axis=2).mean() < (0.5 if count == 4 else 0.08)


@pytest.mark.parametrize("count", [10, 60, 150, 240])
def test_a_sheet_of_many_images_is_wider_or_they_are_smaller(count):
    images = [np.full((30, 40, 3), index + 1, np.uint8) for index in range(count)]
    sheet = pose_sheet(images, width=100, row_height=30, longest_side=300)
    height, width = sheet.shape[:2]
    assert height <= 300 and width in ((100,) if count == 10 else (200, 300))
    assert set(np.unique(sheet)) >= set(range(1, count + 1))


def test_a_sheet_of_one_wide_image_fits_and_of_none_is_refused():
    assert pose_sheet([np.zeros((10, 500, 3), np.uint8)], width=100, row_height=50).shape[1] == 100
    with pytest.raises(ValueError, match="at least one image"):
        pose_sheet([])


def test_a_very_wide_image_does_not_shrink_the_others_of_its_row():
    strip, square = np.zeros((1, 9000, 3), np.uint8), np.full((50, 50, 3), 100, np.uint8)
    sheet = pose_sheet([square, strip, square], width=258, row_height=50)
    assert (sheet == 100).all(axis=2).sum() == 2 * 50**2
