from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from querypose.data import QueryPoseDatasetMapper, register_coco_keypoints
from querypose.skeleton import (
    COCO_SKELETON,
    CROWDPOSE_SKELETON,
    DEFAULT_SIGMA,
    Skeleton,
    flips_by_name,
)

NAMES = ("nose", "left_hand", "right_hand")


def _metadata(**fields: object) -> Metadata:
    return Metadata(name="test_skeleton", **fields)


class TestDeclaration:
    def test_defaults(self):
        skeleton = Skeleton(NAMES)
        assert skeleton.num_keypoints == 3
        assert skeleton.sigmas == (DEFAULT_SIGMA,) * 3
        assert skeleton.parts == (("nose",), ("left_hand",), ("right_hand",))
        assert skeleton.part_indices == ((0,), (1,), (2,))
        assert skeleton.edges == ()

    def test_flips_follow_from_the_names_unless_they_are_given(self):
        assert Skeleton(NAMES).flips == (("left_hand", "right_hand"),)
        assert Skeleton(NAMES, flips=()).flips == ()

    def test_numbers_are_indices_unless_keypoints_are_named_by_numbers(self):
        skeleton = Skeleton(NAMES, flips=((1, 2),), edges=((0, 2),), parts=((0,), (1, 2)))
        assert skeleton.flips == (("left_hand", "right_hand"),)
        assert skeleton.edges == (("nose", "right_hand"),)
        assert skeleton.parts == (("nose",), ("left_hand", "right_hand"))
        assert Skeleton((2, 1, 0), edges=((0, 2),)).edges == (("0", "2"),)

    def test_arrays_sets_and_iterators_are_lists(self):
        skeleton = Skeleton(
            NAMES,
            flips=zip(["left_hand"], ["right_hand"], strict=True),
            edges=np.array([[0, 2]]),
            parts=[{"nose"}, {"left_hand"}, {"right_hand"}],
            sigmas=np.array([0.1, 0.2, 0.2]),
        )
        assert skeleton == Skeleton(NAMES, edges=((0, 2),), sigmas=(0.1, 0.2, 0.2))
        assert hash(skeleton) == hash(dataclasses.replace(skeleton))

    def test_indices_follow_the_names(self):
        skeleton = Skeleton(
            NAMES,
            edges=(("right_hand", "nose"),),
            parts=(("right_hand", "nose"), ("left_hand",)),
        )
        assert skeleton.edge_indices == ((2, 0),)
        assert skeleton.part_indices == ((2, 0), (1,))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"keypoints": ()}, "distinct keypoint names"),
            ({"keypoints": ("a", "b", "a")}, "distinct keypoint names"),
            ({"flips": (("left_hand", "tail"),)}, r"flips name \['tail'\]"),
            ({"edges": (("fin", "tail"),)}, r"edges name \['fin', 'tail'\]"),
            ({"parts": (NAMES, ("tail",))}, r"parts name \['tail'\]"),
            ({"sigmas": (0.1, 0.1)}, "3 keypoints but 2 sigmas"),
            ({"sigmas": (0.1, 0.0, 0.1)}, "sigmas must be positive"),
            ({"sigmas": (0.1, float("nan"), 0.1)}, "sigmas must be positive"),
            ({"sigmas": (0.1, float("inf"), 0.1)}, "sigmas must be positive"),
            ({"keypoints": "nose"}, "a list of names, not 'nose'"),
            ({"keypoints": ("nose", None)}, "a string or an integer, not None"),
            ({"flips": (NAMES,)}, "is a pair"),
            ({"edges": (("nose", "nose"),)}, "two different keypoints, unlike"),
            ({"edges": (("nose",),)}, "is a pair"),
            (
                {"flips": (("left_hand", "right_hand"), ("nose", "left_hand"))},
                "in two flip pairs",
            ),
            ({"flips": (("nose", "nose"),)}, "in two flip pairs"),
            ({"parts": (("nose",), ("left_hand",))}, "every keypoint exactly once"),
            ({"parts": (NAMES, ("nose",))}, "every keypoint exactly once"),
            ({"parts": (NAMES, ())}, "every keypoint exactly once"),
        ],
    )
    def test_contradictions_are_refused(self, fields, message):
        with pytest.raises(ValueError, match=message):
            Skeleton(**({"keypoints": NAMES} | fields))


class TestFiles:
    FIELDS = {  # noqa: RUF012
        "keypoints": list(NAMES),
        "flips": [["left_hand", "right_hand"]],
        "sigmas": [0.1, 0.2, 0.3],
        "edges": [["nose", "left_hand"]],
        "parts": [["nose"], ["right_hand", "left_hand"]],
    }
    SKELETON = Skeleton(
        NAMES,
        (("left_hand", "right_hand"),),
        (0.1, 0.2, 0.3),
        (("nose", "left_hand"),),
        (("nose",), ("right_hand", "left_hand")),
    )

    def test_plain_lists(self):
        assert Skeleton.from_dict(self.FIELDS) == self.SKELETON

    def test_flips_follow_from_the_names_unless_declared(self):
        names = ["NOSE", "L_HAND", "R_HAND"]
        assert Skeleton.from_dict({"keypoints": names}).flips == (("L_HAND", "R_HAND"),)
        assert Skeleton.from_dict({"keypoints": names, "flips": []}).flips == ()

    def test_numbers_are_names_where_names_are_numbers(self, tmp_path):
        file = tmp_path / "numbered.yaml"
        file.write_text("keypoints: [1, 2, 3]\nedges: [[1, 2], ['2', 3]]\nflips: [[1, 3]]")
        skeleton = Skeleton.from_file(file)
        assert skeleton.keypoints == ("1", "2", "3")
        assert skeleton.edges == (("1", "2"), ("2", "3"))
        assert skeleton.flips == (("1", "3"),)
        assert skeleton.flip_indices == (2, 1, 0)

    def test_edges_by_index(self):
        fields = self.FIELDS | {"edges": [[0, 1], [2, "nose"]]}
        edges = Skeleton.from_dict(fields).edges
        assert edges == (("nose", "left_hand"), ("right_hand", "nose"))

    @pytest.mark.parametrize("index", [-1, 3])
    def test_an_index_outside_the_keypoints_is_refused(self, index):
        with pytest.raises(ValueError, match=rf"index {index} is outside 0\.\.2"):
            Skeleton.from_dict(self.FIELDS | {"edges": [[0, index]]})

    @pytest.mark.parametrize(
        ("fields", "given"),
        [
            ({"names": list(NAMES)}, r"\['names'\]"),
            ({"keypoints": list(NAMES), "part": []}, r"\['keypoints', 'part'\]"),
            (list(NAMES), "list"),
            (None, "NoneType"),
        ],
    )
    def test_unknown_fields_are_refused(self, fields, given):
        with pytest.raises(ValueError, match=f"declared by keypoints.*got {given}"):
            Skeleton.from_dict(fields)

    @pytest.mark.parametrize(("suffix", "dump"), [("yaml", yaml.safe_dump), ("json", json.dumps)])
    def test_yaml_and_json(self, suffix, dump, tmp_path):
        file = tmp_path / f"skeleton.{suffix}"
        file.write_text(dump(self.FIELDS))
        assert Skeleton.from_file(file) == Skeleton.from_file(str(file)) == self.SKELETON

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "keypoints: [a, a]",
            "keypoints: 7",
            "keypoints: [a\nb: {",
            "keypoints: [a]\nedges: 3",
        ],
    )
    def test_a_bad_file_is_named(self, content, tmp_path):
        file = tmp_path / "bad.yaml"
        file.write_text(content)
        with pytest.raises(ValueError, match=r"bad\.yaml does not declare a skeleton"):
            Skeleton.from_file(file)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no skeleton file .*none\.yaml"):
            Skeleton.from_file(tmp_path / "none.yaml")


class TestCocoCategory:
    def test_names_edges_and_flips(self):
        category = {"keypoints": ["left_paw", "tail", "right_paw"], "skeleton": [[1, 2], [3, 2]]}
        skeleton = Skeleton.from_coco_json("dogs.json", category)
        assert skeleton.keypoints == ("left_paw", "tail", "right_paw")
        assert skeleton.edges == (("left_paw", "tail"), ("right_paw", "tail"))
        assert skeleton.flips == (("left_paw", "right_paw"),)
        assert len(skeleton.parts) == 3

    def test_edges_that_count_from_zero(self):
        category = {"keypoints": ["a", "b", "c"], "skeleton": [[1, 2], [0, 2]]}
        assert Skeleton.from_coco_json("x.json", category).edges == (("b", "c"), ("a", "c"))

    def test_names_that_are_numbers(self):
        """COCO's edges are places, whatever the keypoints are called."""
        category = {"keypoints": [0, 1, 2], "skeleton": [[1, 2], [2, 3]]}
        skeleton = Skeleton.from_coco_json("x.json", category)
        assert skeleton.keypoints == ("0", "1", "2")
        assert skeleton.edges == (("0", "1"), ("1", "2"))
        assert Skeleton.from_metadata(_metadata(**skeleton.metadata())) == skeleton

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"skeleton": [[1, 2], [2, 4]]}, r"edge \[2, 4\] of its skeleton leaves .* from 1"),
            ({"keypoints": ["a", "b", "a"]}, r"distinct keypoint names, got \('a', 'b', 'a'\)"),
            ({"keypoints": "abc"}, "a list of names, not 'abc'"),
            ({"keypoints": ["a", None]}, "a string or an integer, not None"),
        ],
    )
    def test_a_contradiction_is_refused_in_one_sentence(self, fields, message):
        category = {"name": "person", "keypoints": ["a", "b", "c"]} | fields
        with pytest.raises(
            ValueError, match=f"^x\\.json: category 'person': .*{message}; correct"
        ) as refusal:
            Skeleton.from_coco_json("x.json", category)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("known", [COCO_SKELETON, CROWDPOSE_SKELETON])
    def test_known_names_give_the_known_skeleton(self, known):
        category = {"keypoints": list(known.keypoints), "skeleton": [[16, 14]]}
        assert Skeleton.from_coco_json("x.json", category) is known

    @pytest.mark.parametrize("category", [{"name": "dog"}, {"name": "dog", "keypoints": []}])
    def test_a_category_without_keypoints_is_refused(self, category):
        with pytest.raises(ValueError, match=r"x\.json: category 'dog' lists no keypoints"):
            Skeleton.from_coco_json("x.json", category)


class TestMetadata:
    def test_detectron2s_own_coco(self):
        metadata = MetadataCatalog.get("keypoints_coco_2017_train")
        assert Skeleton.from_metadata(metadata) == COCO_SKELETON

    def test_coco_agrees_with_detectron2s_declaration(self):
        metadata = MetadataCatalog.get("keypoints_coco_2017_train")
        assert list(COCO_SKELETON.keypoints) == list(metadata.keypoint_names)
        flips = {frozenset(pair) for pair in metadata.keypoint_flip_map}
        assert {frozenset(pair) for pair in COCO_SKELETON.flips} == flips

    @pytest.mark.parametrize("skeleton", [COCO_SKELETON, CROWDPOSE_SKELETON])
    def test_known_skeletons_survive(self, skeleton):
        metadata = _metadata(**skeleton.metadata())
        assert Skeleton.from_metadata(metadata) == skeleton

    @pytest.mark.parametrize("count", [1, 4, 14, 17, 21, 133])
    def test_any_skeleton_survives(self, count):
        names = tuple(f"{side}_{i}" for i in range(count) for side in ("left", "right"))[:count]
        skeleton = Skeleton(
            names,
            flips=flips_by_name(names),
            sigmas=tuple(0.01 + 0.001 * index for index in range(count)),
            edges=tuple(pairwise(names)),
            parts=tuple(names[start : start + 3] for start in range(0, count, 3))[::-1],
        )
        assert len(skeleton.flips) == count // 2
        assert Skeleton.from_metadata(_metadata(**skeleton.metadata())) == skeleton

    def test_coco_keypoints_in_other_parts_stay_in_them(self):
        skeleton = Skeleton(COCO_SKELETON.keypoints)
        assert Skeleton.from_metadata(_metadata(**skeleton.metadata())) == skeleton
        assert len(skeleton.parts) == 17

    def test_flips_declared_in_both_directions_are_one(self):
        """As Detectron2 takes them, too."""
        names = ["nose", "left_a", "right_a", "left_b", "right_b"]
        flips = [("nose", "nose"), ("left_a", "right_a"), ("right_a", "left_a")]
        flips += [("left_b", "right_b"), ("right_b", "left_b")]
        metadata = _metadata(keypoint_names=names, keypoint_flip_map=flips)
        assert Skeleton.from_metadata(metadata).flips == flips_by_name(names)

    @pytest.mark.parametrize(
        ("declared", "expected"), [({}, (("L", "R"),)), ({"keypoint_flip_map": []}, ())]
    )
    def test_flips_follow_from_the_names_unless_declared(self, declared, expected):
        metadata = _metadata(keypoint_names=["L", "R"], **declared)
        assert Skeleton.from_metadata(metadata).flips == expected

    def test_foreign_names_that_are_numbers(self):
        rules = [(10, 11, (1, 2, 3))]
        metadata = _metadata(
            keypoint_names=[10, 11], keypoint_flip_map=[(10, 11)], keypoint_connection_rules=rules
        )
        skeleton = Skeleton.from_metadata(metadata)
        assert skeleton.keypoints == ("10", "11")
        assert skeleton.edges == skeleton.flips == (("10", "11"),)

    def test_foreign_metadata_gives_parts_of_one_keypoint(self):
        metadata = _metadata(
            keypoint_names=["left_a", "right_a"],
            keypoint_flip_map=[("left_a", "right_a")],
            keypoint_connection_rules=[("left_a", "right_a", (1, 2, 3))],
        )
        skeleton = Skeleton.from_metadata(metadata)
        assert skeleton.parts == (("left_a",), ("right_a",))
        assert skeleton.edges == skeleton.flips == (("left_a", "right_a"),)

    def test_metadata_without_keypoints_is_refused(self):
        with pytest.raises(ValueError, match="'test_skeleton' declares no keypoints"):
            Skeleton.from_metadata(_metadata(thing_classes=["person"]))

    @pytest.mark.parametrize(
        "names",
        [
            ("nose", "neck", "left_ear", "right_ear"),
            ("NOSE", "NECK", "EAR_L", "EAR_R"),
            ("nose", "neck", "lear", "rear"),
        ],
    )
    def test_edges_are_colored_by_side(self, names):
        nose, neck, left, right = names
        skeleton = Skeleton(names, edges=((nose, left), (nose, right), (nose, neck), (left, right)))
        assert _colors(skeleton) == [BLUE, ORANGE, GREEN, GREEN]

    def test_colors_follow_declared_flips_where_names_do_not_tell(self):
        flips = (("a", "b"), ("right_ear", "left_ear"))
        edges = (("a", "c"), ("c", "b"), ("left_ear", "c"))
        skeleton = Skeleton(("a", "b", "c", "left_ear", "right_ear"), flips=flips, edges=edges)
        assert _colors(skeleton) == [BLUE, ORANGE, BLUE]


def test_a_mirrored_image_teaches_the_other_side(tmp_path, tiny_cfg):
    """From the names in a label file to the indices by which training flips."""
    category = {"id": 1, "name": "person", "keypoints": ["NOSE", "ELBOW_L", "ELBOW_R"]}
    image = {"id": 1, "file_name": "1.png", "width": 8, "height": 8}
    content = {"images": [image], "annotations": [], "categories": [category]}
    (tmp_path / "people.json").write_text(json.dumps(content))
    name = "test_skeleton_mirrored"
    register_coco_keypoints(name, tmp_path / "people.json", tmp_path)
    try:
        mapper = QueryPoseDatasetMapper(tiny_cfg({"DATASETS.TRAIN": (name,)}), is_train=True)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert mapper.flip_indices.tolist() == [0, 2, 1]


BLUE, ORANGE, GREEN = (51, 153, 255), (255, 128, 0), (102, 204, 102)


def _colors(skeleton: Skeleton) -> list[tuple[int, int, int]]:
    return [color for *_, color in skeleton.metadata()["keypoint_connection_rules"]]


class TestKnownSkeletons:
    def test_coco_parts_are_the_papers(self):
        indices = ((0, 1, 2, 3, 4), (5, 6), (7, 9), (8, 10), (11, 12), (13, 15), (14, 16))
        assert COCO_SKELETON.part_indices == indices

    def test_crowdpose_parts(self):
        assert CROWDPOSE_SKELETON.keypoints[0] == "left_shoulder"
        indices = ((12, 13), (0, 1), (2, 4), (3, 5), (6, 7), (8, 10), (9, 11))
        assert CROWDPOSE_SKELETON.part_indices == indices

    def test_coco_sigmas(self):
        expected = [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
        assert [round(1000 * sigma) for sigma in COCO_SKELETON.sigmas] == expected
        assert pytest.approx(DEFAULT_SIGMA, abs=5e-4) == sum(expected) / 17000


def test_parts_and_keypoints_know_each_other():
    for skeleton in (COCO_SKELETON, CROWDPOSE_SKELETON):
        for part, keypoints in enumerate(skeleton.part_indices):
            assert {skeleton.part_of_keypoint[keypoint] for keypoint in keypoints} == {part}


@pytest.mark.parametrize(
    "skeleton",
    [
        COCO_SKELETON,
        CROWDPOSE_SKELETON,
        # Names that are numbers, and no flips where names would give some.
        Skeleton(("2", "10", "7"), flips=(("2", "10"),), edges=(("7", "2"),), sigmas=(0.1, 0.2, 1)),
        Skeleton(("left_hand", "right_hand"), parts=(("left_hand", "right_hand"),)),
    ],
)
def test_plain_lists_and_text_give_the_same_skeleton(skeleton):
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
    assert Skeleton.from_yaml(skeleton.to_yaml()) == skeleton
    assert "\n" in skeleton.to_yaml().strip()
