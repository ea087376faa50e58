from __future__ import annotations

import pytest

from querypose.keypoint_names import edges_of_coco_category, groups_from

NAMES = ("nose", "left_hand", "right_hand")


class TestEdgesOfACocoCategory:
    @pytest.mark.parametrize("edges", [None, []])
    def test_none(self, edges):
        assert edges_of_coco_category(edges, NAMES) == ()

    @pytest.mark.parametrize("first", [0, 1])
    def test_they_count_from_one_unless_a_zero_is_among_them(self, first):
        edges = [[first + 2, first + 1], [first, first + 2]]
        expected = (("right_hand", "left_hand"), ("nose", "right_hand"))
        assert edges_of_coco_category(edges, NAMES) == expected

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ([1, 4], r"edge \[1, 4\] of its skeleton leaves the keypoints 1\.\.3, counted from 1"),
            ([-1, 2], r"edge \[-1, 2\] .* leaves the keypoints"),
            ([0, 3], r"edge \[0, 3\] .* leaves the keypoints 0\.\.2, counted from 0 as edge"),
            ([2, 2], r"edge \[2, 2\] .* is not two different integers"),
            ([1, 2, 3], r"edge \[1, 2, 3\] .* is not two different integers"),
            ([1], r"edge \[1\] .* is not two different integers"),
            ([1, 2.5], r"edge \[1, 2\.5\] .* is not two different integers"),
            ([1, "nose"], r"edge \[1, 'nose'\] .* is not two different integers"),
            ([1, None], r"edge \[1, None\] .* is not two different integers"),
            ([True, 2], r"edge \[True, 2\] .* is not two different integers"),
            (3, "edge 3 .* is not two different integers"),
            ("12", "edge '12' .* is not two different integers"),
        ],
    )
    @pytest.mark.parametrize("place", [0, 1])
    def test_none_is_dropped_or_shifted(self, wrong, message, place):
        edges = [[1, 2]]
        edges.insert(place, wrong)
        with pytest.raises(ValueError, match=message):
            edges_of_coco_category(edges, NAMES)

    @pytest.mark.parametrize("edges", [7, "12", {"a": 1}])
    def test_what_is_no_list_is_refused(self, edges):
        with pytest.raises(ValueError, match="not a list of pairs"):
            edges_of_coco_category(edges, NAMES)


class TestGroups:
    def test_texts_are_names_and_numbers_are_indices(self):
        groups = groups_from([[0, "right_hand"], ["left_hand"]], NAMES)
        assert groups == (("nose", "right_hand"), ("left_hand",))

    def test_a_number_is_a_name_where_a_name_is_a_number(self):
        assert groups_from([[2, "head"]], ("head", "1", "2")) == (("2", "head"),)
        with pytest.raises(ValueError, match="no keypoint is named 0"):
            groups_from([[0, 1]], ("1", "2"))

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            (3, "a list of lists, not 3"),
            (["nose"], "a group of keypoints is a list, not 'nose'"),
            ([[0, 3]], r"index 3 is outside 0\.\.2"),
        ],
    )
    def test_what_is_no_group_is_refused(self, groups, message):
        with pytest.raises(ValueError, match=message):
            groups_from(groups, NAMES)
