"""What a person looks like in a dataset: keypoint names, flips, sigmas, edges and parts.

A :class:`Skeleton` is the one declaration from which heads, losses, flips, evaluation and drawing
follow. Datasets carry it in Detectron2's metadata; nothing else in the package knows a keypoint
count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

DEFAULT_SIGMA = 0.067
"""OKS sigma of a keypoint that no one measured: the mean of COCO's seventeen."""

_SIDES = (
    ("left", "right"),
    ("Left", "Right"),
    ("LEFT", "RIGHT"),
    ("l_", "r_"),
    ("_l", "_r"),
    ("L", "R"),
)


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of a person and how they belong together.

    Attributes:
        keypoints: names in the dataset's order.
        flips: pairs of names that a horizontal flip exchanges.
        sigmas: OKS standard deviation per keypoint, relative to the square root of the person's
            area; empty means :data:`DEFAULT_SIGMA` for each.
        edges: pairs of names between which a limb is drawn.
        parts: groups of names that share a part query (paper section 3.2); empty means that every
            keypoint is a part of its own.

    Raises:
        ValueError: a name is unknown or repeated, or a count does not fit.
    """

    keypoints: tuple[str, ...]
    flips: tuple[tuple[str, str], ...] = ()
    sigmas: tuple[float, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, ...], ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.keypoints or len(set(self.keypoints)) != len(self.keypoints):
            raise ValueError(f"A skeleton needs distinct keypoint names, got {self.keypoints}.")
        if not self.sigmas:
            object.__setattr__(self, "sigmas", (DEFAULT_SIGMA,) * self.num_keypoints)
        if not self.parts:
            object.__setattr__(self, "parts", tuple((name,) for name in self.keypoints))
        self._check_names("flips", self.flips)
        self._check_names("edges", self.edges)
        self._check_names("parts", self.parts)
        self._check_counts()

    def _check_names(self, what: str, groups: Sequence[Sequence[str]]) -> None:
        unknown = sorted({name for group in groups for name in group} - set(self.keypoints))
        if unknown:
            raise ValueError(
                f"The skeleton's {what} name {unknown}, which are not keypoints of it."
            )

    def _check_counts(self) -> None:
        if len(self.sigmas) != self.num_keypoints:
            raise ValueError(
                f"The skeleton has {self.num_keypoints} keypoints but {len(self.sigmas)} sigmas."
            )
        if not all(np.isfinite(sigma) and sigma > 0 for sigma in self.sigmas):
            raise ValueError(f"OKS sigmas must be positive, got {self.sigmas}.")
        if any(len(pair) != 2 for pair in (*self.flips, *self.edges)):
            raise ValueError("Every flip and every edge of a skeleton is a pair of keypoint names.")
        in_flips = [name for pair in self.flips for name in pair]
        if len(in_flips) != len(set(in_flips)):
            raise ValueError(f"A keypoint appears in two flip pairs: {self.flips}.")
        in_parts = [name for part in self.parts for name in part]
        if sorted(in_parts) != sorted(self.keypoints) or not all(self.parts):
            raise ValueError(
                "The skeleton's parts must hold every keypoint exactly once, "
                f"got {self.parts} for {self.keypoints}."
            )

    @property
    def num_keypoints(self) -> int:
        """How many keypoints a person has."""
        return len(self.keypoints)

    @property
    def part_indices(self) -> tuple[tuple[int, ...], ...]:
        """The parts as indices into :attr:`keypoints`."""
        index = {name: i for i, name in enumerate(self.keypoints)}
        return tuple(tuple(index[name] for name in part) for part in self.parts)

    @property
    def part_of_keypoint(self) -> tuple[int, ...]:
        """For every keypoint, the index of its part."""
        part_of = {name: index for index, part in enumerate(self.parts) for name in part}
        return tuple(part_of[name] for name in self.keypoints)

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """For every keypoint, the index of the one that a mirrored picture shows in its place."""
        partner = dict(self.flips) | {right: left for left, right in self.flips}
        return tuple(self.keypoints.index(partner.get(name, name)) for name in self.keypoints)

    @property
    def edge_indices(self) -> tuple[tuple[int, int], ...]:
        """The edges as indices into :attr:`keypoints`."""
        index = {name: i for i, name in enumerate(self.keypoints)}
        return tuple((index[start], index[end]) for start, end in self.edges)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Skeleton:
        """Builds a skeleton from plain lists, as YAML and JSON give them.

        Args:
            fields: ``keypoints`` and, optionally, ``flips``, ``sigmas``, ``edges``, ``parts``.
                Edges may be names or 0-based indices.

        Raises:
            ValueError: an unknown field, or fields that contradict each other.
        """
        known = {"keypoints", "flips", "sigmas", "edges", "parts"}
        if not isinstance(fields, Mapping) or "keypoints" not in fields or set(fields) - known:
            given = sorted(fields) if isinstance(fields, Mapping) else type(fields).__name__
            raise ValueError(
                f"A skeleton is declared by keypoints and, optionally, "
                f"{sorted(known - {'keypoints'})}; got {given}."
            )
        names = tuple(str(name) for name in fields["keypoints"])
        return cls(
            keypoints=names,
            flips=_named_groups(fields.get("flips"), names),
            sigmas=tuple(float(sigma) for sigma in fields.get("sigmas") or ()),
            edges=_named_groups(fields.get("edges"), names),
            parts=_named_groups(fields.get("parts"), names),
        )

    @classmethod
    def from_file(cls, path: str | Path) -> Skeleton:
        """Reads a skeleton from a YAML or JSON file with the fields of :meth:`from_dict`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file does not declare a skeleton.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no skeleton file {path}.")
        try:
            return cls.from_dict(yaml.safe_load(path.read_text()))
        except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise ValueError(f"{path} does not declare a skeleton: {error}") from error

    @classmethod
    def from_coco_json(cls, json_file: str | Path, category: Mapping[str, Any]) -> Skeleton:
        """The skeleton that a COCO-format keypoint category describes.

        Names that equal a known skeleton's give that skeleton. Otherwise flips follow from ``left``
        and ``right`` in the names, and every keypoint is a part of its own.

        Raises:
            ValueError: the category has no keypoint names.
        """
        names = tuple(category.get("keypoints") or ())
        if not names:
            raise ValueError(
                f"{json_file}: category {category.get('name')!r} lists no keypoints; "
                "declare the skeleton when registering the dataset."
            )
        for known in (COCO_SKELETON, CROWDPOSE_SKELETON):
            if names == known.keypoints:
                return known
        edges = tuple(
            (names[start - 1], names[end - 1])
            for start, end in category.get("skeleton") or ()
            if 1 <= start <= len(names) and 1 <= end <= len(names)
        )
        return cls(keypoints=names, flips=flips_by_name(names), edges=edges)

    @classmethod
    def from_metadata(cls, metadata: Any) -> Skeleton:
        """The skeleton of a registered dataset.

        Metadata with ``keypoint_parts`` was written by :meth:`metadata`. Without it (Detectron2's
        own datasets) names that equal a known skeleton's give that skeleton.

        Raises:
            ValueError: the dataset declares no keypoints.
        """
        names = tuple(metadata.get("keypoint_names") or ())
        if not names:
            raise ValueError(
                f"Dataset {metadata.get('name')!r} declares no keypoints: register it with "
                "querypose.register_coco_keypoints, or set keypoint_names in its metadata."
            )
        declared_parts = metadata.get("keypoint_parts")
        if declared_parts is None:
            for known in (COCO_SKELETON, CROWDPOSE_SKELETON):
                if names == known.keypoints:
                    return known
        rules = metadata.get("keypoint_connection_rules") or ()
        return cls(
            keypoints=names,
            flips=_distinct_pairs(metadata.get("keypoint_flip_map") or ()),
            sigmas=tuple(metadata.get("keypoint_oks_sigmas") or ()),
            edges=tuple((start, end) for start, end, *_ in rules),
            parts=tuple(tuple(part) for part in declared_parts or ()),
        )

    def metadata(self) -> dict[str, Any]:
        """Fields for ``MetadataCatalog.get(name).set(**...)``, in Detectron2's own terms."""
        return {
            "keypoint_names": list(self.keypoints),
            "keypoint_flip_map": list(self.flips),
            "keypoint_connection_rules": [
                (start, end, _edge_colour(start, end)) for start, end in self.edges
            ],
            "keypoint_oks_sigmas": list(self.sigmas),
            "keypoint_parts": [list(part) for part in self.parts],
        }


def _named_groups(
    groups: Sequence[Sequence[str | int]] | None, names: tuple[str, ...]
) -> tuple[tuple[str, ...], ...]:
    def name_of(item: str | int) -> str:
        if not isinstance(item, int):
            return str(item)
        if not 0 <= item < len(names):
            raise ValueError(f"keypoint index {item} is outside 0..{len(names) - 1}.")
        return names[item]

    return tuple(tuple(name_of(item) for item in group) for group in groups or ())


def _distinct_pairs(pairs: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Each exchange once: Detectron2 also takes both directions, and a name with itself."""
    distinct = {frozenset(pair): (pair[0], pair[1]) for pair in reversed(pairs)}
    return tuple(pair for pair in reversed(distinct.values()) if pair[0] != pair[1])


def flips_by_name(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ in ``left``/``right`` alone, each once, left one first."""
    partner: dict[str, str] = {}
    for name in names:
        for left, right in _SIDES:
            other = name.replace(left, right)
            taken = {name, other} & (partner.keys() | set(partner.values()))
            if other != name and other in names and not taken:
                partner[name] = other
                break
    return tuple(partner.items())


_LEFT_COLOUR, _RIGHT_COLOUR, _MIDDLE_COLOUR = (51, 153, 255), (255, 128, 0), (102, 204, 102)


def _edge_colour(start: str, end: str) -> tuple[int, int, int]:
    """RGB by body side, so that left and right limbs can be told apart in a drawing."""
    sides = {side for side in ("left", "right") for name in (start, end) if side in name.lower()}
    if len(sides) != 1:
        return _MIDDLE_COLOUR
    return _LEFT_COLOUR if "left" in sides else _RIGHT_COLOUR


_LIMB_PARTS = (
    ("left_shoulder", "right_shoulder"),
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("left_hip", "right_hip"),
    ("left_knee", "left_ankle"),
    ("right_knee", "right_ankle"),
)

_LIMB_EDGES = (
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"),
    ("right_knee", "right_ankle"),
)


def _both_sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


def _both_sigmas(*tenths: float) -> tuple[float, ...]:
    return tuple(round(tenth / 10, 4) for tenth in tenths for _ in ("left", "right"))


_LIMBS = _both_sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_LIMB_SIGMAS = _both_sigmas(0.79, 0.72, 0.62, 1.07, 0.87, 0.89)

COCO_SKELETON = Skeleton(
    keypoints=("nose", *_both_sides("eye", "ear"), *_LIMBS),
    flips=flips_by_name((*_both_sides("eye", "ear"), *_LIMBS)),
    sigmas=(0.026, *_both_sigmas(0.25, 0.35), *_LIMB_SIGMAS),
    edges=(
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"),
        ("right_ear", "right_shoulder"),
        *_LIMB_EDGES,
    ),
    parts=(("nose", *_both_sides("eye", "ear")), *_LIMB_PARTS),
)
"""COCO's seventeen keypoints in the seven parts of the paper."""

CROWDPOSE_SKELETON = Skeleton(
    keypoints=(*_LIMBS, "head", "neck"),
    flips=flips_by_name(_LIMBS),
    sigmas=(*_LIMB_SIGMAS, 0.079, 0.079),
    edges=(
        ("head", "neck"),
        ("neck", "left_shoulder"),
        ("neck", "right_shoulder"),
        *(edge for edge in _LIMB_EDGES if edge != ("left_shoulder", "right_shoulder")),
    ),
    parts=(("head", "neck"), *_LIMB_PARTS),
)
"""CrowdPose's fourteen keypoints; the head takes the face's place among the parts."""
