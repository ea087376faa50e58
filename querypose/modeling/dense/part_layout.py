"""PINet's parts and graph: which keypoints propose a person, and which refine one another.

Both are apart from the skeleton's own parts and edges: parts may overlap and leave keypoints out,
and the graph keeps COCO's head and body disconnected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON, Skeleton

Names = tuple[str, ...]


class PartLayout(NamedTuple):
    """Parts and graph of one skeleton.

    Attributes:
        names: of the parts.
        parts: keypoint indices of every part.
        edges: pairs of keypoint indices.
        center_only: whether the only part is the whole person.
    """

    names: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, int], ...]
    center_only: bool


_BODY_EDGES = (
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    *(
        (f"{side}_{start}", f"{side}_{end}")
        for side in ("left", "right")
        for start, end in (
            ("shoulder", "hip"),
            ("shoulder", "elbow"),
            ("elbow", "wrist"),
            ("hip", "knee"),
            ("knee", "ankle"),
        )
    ),
)
_FACE_EDGES = (
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)
_NECK_EDGES = (("head", "neck"), ("neck", "left_shoulder"), ("neck", "right_shoulder"))

_TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_LEGS = ("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle")

_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
# By the names of the skeleton's keypoints: parts (supplement, section 1) and edges.
_DECLARED: dict[Names, tuple[dict[str, Names], tuple[tuple[str, str], ...]]] = {
    COCO_SKELETON.keypoints: (
        {"upper": _FACE, "middle": _TORSO, "bottom": _LEGS},
        (*_FACE_EDGES, *_BODY_EDGES),
    ),
    CROWDPOSE_SKELETON.keypoints: (
        {"upper": ("head", "neck"), "middle": _TORSO, "bottom": _LEGS},
        (*_NECK_EDGES, *_BODY_EDGES),
    ),
}


def mirrored_parts(
    names: Sequence[str], parts: Sequence[Sequence[int]], flip_indices: Sequence[int]
) -> tuple[int, ...]:
    """For every part, the one that shows the same in the mirrored image.

    Args:
        names: of the parts.
        parts: keypoint indices of every part.
        flip_indices: for every keypoint, the one that shows the same in the mirrored image.

    Raises:
        ValueError: there is no such part.
    """
    members = [set(part) for part in parts]
    partners = []
    for index, (name, part) in enumerate(zip(names, members, strict=True)):
        mirrored = {flip_indices[keypoint] for keypoint in part}
        if mirrored not in members:
            raise ValueError(
                f"MODEL.PINET.FLIP_TEST averages {name!r} of MODEL.PINET.PARTS with its keypoints' "
                "mirror images, which are no part: add them as one, or set FLIP_TEST False."
            )
        partners.append(index if mirrored == part else members.index(mirrored))
    return tuple(partners)


def part_layout(skeleton: Skeleton, parts: Sequence[Sequence[str]] = ()) -> PartLayout:
    """Finds the parts and the graph of a skeleton.

    Args:
        skeleton: COCO's and CrowdPose's have declared parts and edges; every other one is a single
            part, and its own edges make the graph.
        parts: keypoint names of every part, in place of those.

    Raises:
        ValueError: a part is empty or names an unknown keypoint.
    """
    whole = {"whole": skeleton.keypoints}
    named, edges = _DECLARED.get(skeleton.keypoints, (whole, skeleton.edges))
    if parts:
        named = {f"part {number}": tuple(part) for number, part in enumerate(parts, start=1)}
    unknown = {name for part in named.values() for name in part} - set(skeleton.keypoints)
    if unknown or not all(named.values()):
        raise ValueError(
            "MODEL.PINET.PARTS lists groups of keypoint names of the skeleton "
            f"({', '.join(skeleton.keypoints)}), not {[list(part) for part in named.values()]}."
        )
    index = {name: i for i, name in enumerate(skeleton.keypoints)}
    indices = tuple(tuple(index[name] for name in part) for part in named.values())
    return PartLayout(
        names=tuple(named),
        parts=indices,
        edges=tuple((index[start], index[end]) for start, end in edges),
        center_only=len(indices) == 1 and len(set(indices[0])) == skeleton.num_keypoints,
    )
