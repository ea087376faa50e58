from __future__ import annotations

import pytest

from querypose.modeling.dense.part_layout import mirrored_parts, part_layout
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON, Skeleton


def test_coco():
    layout = part_layout(COCO_SKELETON)
    assert layout.parts == ((0, 1, 2, 3, 4), (5, 6, 11, 12), (11, 12, 13, 14, 15, 16))
    expected = {(0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (5, 6), (11, 12)}
    expected |= {(5, 11), (6, 12), (5, 7), (7, 9), (6, 8), (8, 10)}
    expected |= {(11, 13), (13, 15), (12, 14), (14, 16)}
    assert {tuple(sorted(edge)) for edge in layout.edges} == expected
    assert len(layout.edges) == 17
    assert layout.names == ("upper", "middle", "bottom")
    assert not layout.center_only


def test_crowdpose():
    layout = part_layout(CROWDPOSE_SKELETON)
    assert layout.parts == ((12, 13), (0, 1, 6, 7), (6, 7, 8, 9, 10, 11))
    assert len({frozenset(edge) for edge in layout.edges}) == len(layout.edges) == 15
    assert {(12, 13), (13, 0), (13, 1), (0, 1)} <= set(layout.edges)


SKELETON = Skeleton(("a", "b", "c"), edges=(("c", "a"),))


def test_another_skeleton_is_one_part_with_its_own_edges():
    layout = part_layout(SKELETON)
    assert layout == (("whole",), ((0, 1, 2),), ((2, 0),), True)


def test_parts_may_be_named():
    layout = part_layout(SKELETON, [["c", "a"], ["a"]])
    assert layout.names == ("part 1", "part 2")
    assert layout.parts == ((2, 0), (0,))
    assert not layout.center_only
    assert not part_layout(SKELETON, [["a"]]).center_only
    assert part_layout(COCO_SKELETON, [COCO_SKELETON.keypoints]).center_only


@pytest.mark.parametrize("skeleton", [COCO_SKELETON, CROWDPOSE_SKELETON, SKELETON])
def test_the_declared_parts_are_their_own_mirror_images(skeleton):
    names, parts, *_ = part_layout(skeleton)
    assert mirrored_parts(names, parts, skeleton.flip_indices) == tuple(range(len(parts)))


def test_parts_of_one_side_are_mirror_images():
    chosen = [["left_hip", "left_knee"], ["nose", "left_hip", "right_hip"]]
    chosen += [["right_knee", "right_hip"], ["left_hip", "nose", "right_hip"]]
    names, parts, *_ = part_layout(COCO_SKELETON, chosen)
    assert mirrored_parts(names, parts, COCO_SKELETON.flip_indices) == (2, 1, 0, 3)
    with pytest.raises(ValueError, match=r"FLIP_TEST averages 'part 1' of .* set FLIP_TEST False"):
        mirrored_parts(names[:2], parts[:2], COCO_SKELETON.flip_indices)


@pytest.mark.parametrize("parts", [[["a", "d"]], [["a"], []]])
def test_senseless_parts_are_named(parts):
    with pytest.raises(ValueError, match=r"MODEL\.PINET\.PARTS lists groups of .*\(a, b, c\)"):
        part_layout(SKELETON, parts)
