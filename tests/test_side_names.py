from __future__ import annotations

import itertools
import logging

import pytest

from querypose.side_names import find_flips, flips_by_name, sides_by_name

PAIRS = [
    ("left_eye", "right_eye"),
    ("Left Eye", "Right Eye"),
    ("LEFT_EYE_INNER", "RIGHT_EYE_INNER"),
    ("LeftFoot", "RightFoot"),
    ("leftFoot", "rightFoot"),
    ("eye.left", "eye.right"),
    ("mouthLeft", "mouthRight"),
    ("left1", "right1"),
    ("mixamorig:LeftArm", "mixamorig:RightArm"),
    ("ear (left)", "ear (right)"),
    ("lefteye", "righteye"),
    ("EYELEFT", "EYERIGHT"),
    ("L_ELBOW", "R_ELBOW"),
    ("ELBOW_L", "ELBOW_R"),
    ("l_small_toe", "r_small_toe"),
    ("l-eye", "r-eye"),
    ("lEye", "rEye"),
    ("eyeL", "eyeR"),
    ("LBigToe", "RBigToe"),
    ("Hand.L.001", "Hand.R.001"),
    ("forelegL1", "forelegR1"),
    ("L", "R"),
    ("l2", "r2"),
    ("Lt Knee", "Rt Knee"),
    ("LELB", "RELB"),
    ("lelb", "relb"),
    ("Lsho", "Rsho"),
    ("lhip", "rhip"),
    ("upper_larm", "upper_rarm"),
    ("elbowl", "elbowr"),
    ("lear", "rear"),
]


class TestPairs:
    @pytest.mark.parametrize("pair", PAIRS)
    def test_every_spelling_of_a_side(self, pair):
        for names in itertools.permutations(["nose", *pair]):
            assert flips_by_name(names) == (pair,)

    def test_a_skeleton_may_spell_sides_in_several_ways(self):
        pairs = (
            *(("LEFT_EYE", "RIGHT_EYE"), ("earleft", "earright"), ("L-hand", "R-hand")),
            *(("lKnee", "rKnee"), ("toe.l", "toe.r"), ("LELB", "RELB"), ("hipl", "hipr")),
        )
        names = ["leg", *itertools.chain(*pairs), "nail"]
        assert flips_by_name(names) == pairs
        assert flips_by_name(names[::-1]) == pairs[::-1]

    def test_spelling_may_differ_within_a_pair(self):
        assert flips_by_name(["right eye", "Left_Eye"]) == (("Left_Eye", "right eye"),)

    @pytest.mark.parametrize(
        "names",
        [
            ["LASI", "RASI", "LPSI", "RPSI", "SACR"],  # Vicon's markers.
            ["le", "re", "ls", "rs", "nose"],
            ["fl", "fr", "rl", "rr"],  # Paws: front and rear.
            ["paw1LF", "paw1RF", "paw1LH", "paw1RH"],
        ],
    )
    def test_joined_letters_support_each_other(self, names):
        assert flips_by_name(names) == (tuple(names[:2]), tuple(names[2:4]))
        assert flips_by_name(names[:2]) == ()

    @pytest.mark.parametrize(
        "names",
        [
            ["left_eye", "nose"],
            ["left_eye", "right_ear"],
            ["a", "b"],
            ["0", "1", "2"],
            ["leg", "reg", "lip", "rip"],
            ["light", "right"],
            ["bright", "blight"],
            ["label", "rabel"],
            ["heel", "heer"],
            ["lower_lip", "upper_lip", "rear", "collar", "tail"],
            ["ll", "lr", "rl", "rr"],  # Either letter could be the side.
            ["l_eye", "r_eye", "L-Eye"],
            ["_", "-", ""],
        ],
    )
    def test_no_pair_is_invented(self, names):
        assert flips_by_name(names) == ()

    def test_a_letter_is_no_side_beside_a_word_for_it(self):
        names = ["left_l_ear", "right_l_ear", "left_r_ear", "right_r_ear"]
        pairs = (("left_l_ear", "right_l_ear"), ("left_r_ear", "right_r_ear"))
        assert flips_by_name(names) == pairs

    def test_every_side_of_a_name_is_exchanged(self):
        """The outer corner of an eye mirrors the outer corner of the other."""
        names = [f"{eye}_eye_{side}" for eye in ("left", "right") for side in ("left", "right")]
        assert flips_by_name(names) == (
            ("left_eye_left", "right_eye_right"),
            ("left_eye_right", "right_eye_left"),
        )

    def test_or_one_of_them_where_the_other_letter_is_no_side(self):
        names = ["L_F_L", "R_F_L", "L_H_L", "R_H_L"]  # Front and hind legs.
        assert flips_by_name(names) == (("L_F_L", "R_F_L"), ("L_H_L", "R_H_L"))


def test_sides():
    names = ["nose", "LELB", "RELB", "left_eye", "ear.r", "left_eye_right_corner", "upright"]
    expected = {"LELB": "left", "RELB": "right", "left_eye": "left", "ear.r": "right"}
    assert sides_by_name(names) == expected


class TestWarning:
    def test_no_pair_is_said_once(self, caplog):
        for _ in range(2):
            assert find_flips(["snout", "withers", "croup"]) == ()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "No flip pair was found for the keypoints 'snout', 'withers', 'croup'" in caplog.text
        assert "flips: [[left, right], ...] in a skeleton file" in caplog.text

    def test_a_side_without_a_partner_is_said(self, caplog):
        assert find_flips(["L_EYE", "R_EYE", "L_ERA", "R_EAR"]) == (("L_EYE", "R_EYE"),)
        assert "for the keypoints 'L_ERA', 'R_EAR' by their names" in caplog.text

    def test_long_lists_are_cut(self, caplog):
        find_flips([f"point {number}" for number in range(133)])
        assert "'point 4', 'point 5', ... by their names" in caplog.text

    def test_numbered_points_beside_pairs_are_said(self, caplog):
        """As the face of COCO-WholeBody beside its hands, which are numbered, too."""
        face = [f"face-{number}" for number in range(68)]
        hands = [f"{side}_thumb{number}" for side in ("left", "right") for number in range(1, 5)]
        assert len(find_flips(["nose", *face, *hands])) == 4
        assert "for the keypoints 'face-0', 'face-1', 'face-2'" in caplog.text
        assert "..." in caplog.text and "thumb" not in caplog.text and "nose" not in caplog.text

    @pytest.mark.parametrize(
        "names",
        [["nose"], ["nose", "l_eye", "r_eye"], ["nose1", "tail", "tail2", "l_eye1", "r_eye1"]],
    )
    def test_nothing_is_said_of_a_sound_skeleton(self, names, caplog):
        find_flips(names)
        assert not caplog.records
