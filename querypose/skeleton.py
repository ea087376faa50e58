"""The keypoints of a dataset: names, flips, sigmas, edges and parts.

Heads, losses, flips, evaluation and drawing all follow from a :class:`Skeleton`. Datasets declare
it in Detectron2's metadata; nothing else in the package knows the number of keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from querypose import known_skeletons
from querypose.keypoint_names import (
    distinct_pairs,
    edges_of_coco_category,
    groups_from,
    names_from,
)
from querypose.side_names import find_flips, flips_by_name, sides_by_name

__all__ = ["COCO_SKELETON", "CROWDPOSE_SKELETON", "Skeleton", "flips_by_name"]

DEFAULT_SIGMA = 0.067
"""OKS sigma of keypoints without a measured one: the mean of COCO's seventeen."""

_SIDE_COLORS = {"left": (51, 153, 255), "right": (255, 128, 0)}
_MIDDLE_COLOR = (102, 204, 102)


@dataclass(frozen=True)
class Skeleton:
    """The keypoints of a person and their relations.

    Flips, edges and parts may also be given by indices from 0; if keypoints are named by numbers,
    every number is a name.

    Attributes:
        keypoints: names in the dataset's order; numbers become strings, here and below.
        flips: pairs of names that a horizontal flip exchanges. If none are given, they follow from
            the names; ``()`` means that there are none.
        sigmas: OKS standard deviation per keypoint, relative to the square root of the person's
            area; empty means :data:`DEFAULT_SIGMA` for each.
        edges: pairs of names to draw limbs between.
        parts: groups of names that share a part query (paper section 3.2); empty means that every
            keypoint is a part of its own.

    Raises:
        ValueError: a name is unknown or repeated, or a count does not fit.
    """

    keypoints: tuple[str, ...]
    flips: tuple[tuple[str, str], ...] = None  # type: ignore[assignment]
    sigmas: tuple[float, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keypoints", names_from(self.keypoints))
        if not self.keypoints or len(set(self.keypoints)) != len(self.keypoints):
            raise ValueError(f"A skeleton needs distinct keypoint names, got {self.keypoints}.")
        if self.flips is None:
            object.__setattr__(self, "flips", find_flips(self.keypoints))
        for groups in ("flips", "edges", "parts"):
            named = groups_from(getattr(self, groups), self.keypoints)
            object.__setattr__(self, groups, named)
        sigmas = () if self.sigmas is None else tuple(map(float, self.sigmas))
        object.__setattr__(self, "sigmas", sigmas or (DEFAULT_SIGMA,) * self.num_keypoints)
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
                f"The skeleton's {what} name {unknown}, which are not among its keypoints."
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
        loops = [edge for edge in self.edges if edge[0] == edge[1]]
        if loops:
            raise ValueError(f"An edge joins two different keypoints, unlike {loops[0]}.")
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
        """The number of keypoints of a person."""
        return len(self.keypoints)

    @property
    def part_indices(self) -> tuple[tuple[int, ...], ...]:
        """The parts as indices into :attr:`keypoints`."""
        index = {name: i for i, name in enumerate(self.keypoints)}
        return tuple(tuple(index[name] for name in part) for part in self.parts)

    @property
    def part_of_keypoint(self) -> tuple[int, ...]:
        """The index of every keypoint's part."""
        part_of = {name: index for index, part in enumerate(self.parts) for name in part}
        return tuple(part_of[name] for name in self.keypoints)

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """For every keypoint, the index of its mirror partner, or its own."""
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
            fields: ``keypoints`` and, optionally, ``flips``, ``sigmas``, ``edges``, ``parts``, as
                for the class.

        Raises:
            ValueError: a field is unknown, or fields contradict each other.
        """
        known = {"keypoints", "flips", "sigmas", "edges", "parts"}
        if not isinstance(fields, Mapping) or "keypoints" not in fields or set(fields) - known:
            found = sorted(fields) if isinstance(fields, Mapping) else type(fields).__name__
            raise ValueError(
                f"A skeleton is declared by keypoints and, optionally, "
                f"{sorted(known - {'keypoints'})}; got {found}."
            )
        return cls(
            keypoints=fields["keypoints"],
            flips=fields.get("flips"),
            sigmas=fields.get("sigmas"),
            edges=fields.get("edges"),
            parts=fields.get("parts"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The skeleton as plain lists; :meth:`from_dict` builds it again."""
        return {
            "keypoints": list(self.keypoints),
            "sigmas": list(self.sigmas),
            **{
                groups: [list(group) for group in getattr(self, groups)]
                for groups in ("flips", "edges", "parts")
            },
        }

    @classmethod
    def from_yaml(cls, text: str | bytes, source: str = "The text") -> Skeleton:
        """Reads a skeleton from YAML or JSON with the fields of :meth:`from_dict`.

        Args:
            text: the YAML or JSON.
            source: where it comes from, for errors.

        Raises:
            ValueError: the text does not declare a skeleton.
        """
        try:
            return cls.from_dict(yaml.safe_load(text))
        except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise ValueError(f"{source} does not declare a skeleton: {error}") from error

    def to_yaml(self) -> str:
        """The skeleton as YAML of several lines, which ``MODEL.SKELETON`` takes like a file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_file(cls, path: str | Path) -> Skeleton:
        """Reads a skeleton from a YAML or JSON file with the fields of :meth:`from_dict`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file does not declare a skeleton.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no skeleton file {path}.")
        return cls.from_yaml(path.read_bytes(), str(path))

    @classmethod
    def from_coco_json(cls, json_file: str | Path, category: Mapping[str, Any]) -> Skeleton:
        """The skeleton of a COCO-format keypoint category.

        If the names are COCO's or CrowdPose's, the skeleton is theirs. Otherwise flips follow from
        the names, and every keypoint is a part of its own.

        Args:
            json_file: the category's file, for messages.
            category: a row of the file's ``categories``.

        Raises:
            ValueError: the category has no keypoint names, or an edge does not join two keypoints.
        """
        if not category.get("keypoints"):
            raise ValueError(
                f"{json_file}: category {category.get('name')!r} lists no keypoints; "
                "declare the skeleton when registering the dataset."
            )
        try:
            names = names_from(category["keypoints"])
            if names in _KNOWN:
                return _KNOWN[names]
            edges = edges_of_coco_category(category.get("skeleton"), names)
            return cls(keypoints=names, edges=edges)
        except ValueError as error:
            reason = str(error).removesuffix(".")
            raise ValueError(
                f"{json_file}: category {category.get('name')!r}: {reason}; correct it, or declare "
                "the skeleton when registering the dataset."
            ) from error

    @classmethod
    def from_metadata(cls, metadata: Any) -> Skeleton:
        """The skeleton of a registered dataset.

        Metadata with ``keypoint_parts`` was written by :meth:`metadata`. Other metadata, such as
        Detectron2's, with COCO's or CrowdPose's names give the skeleton of these. Without
        ``keypoint_flip_map``, flips follow from the names.

        Raises:
            ValueError: the dataset declares no keypoints.
        """
        names = names_from(list(metadata.get("keypoint_names") or ()))
        if not names:
            raise ValueError(
                f"Dataset {metadata.get('name')!r} declares no keypoints: register it with "
                "querypose.register_coco_keypoints, or set keypoint_names in its metadata."
            )
        declared_parts = metadata.get("keypoint_parts")
        if declared_parts is None and names in _KNOWN:
            return _KNOWN[names]
        flips = metadata.get("keypoint_flip_map")
        rules = metadata.get("keypoint_connection_rules") or ()
        return cls(
            keypoints=names,
            flips=None if flips is None else distinct_pairs(flips),
            sigmas=metadata.get("keypoint_oks_sigmas"),
            edges=tuple((start, end) for start, end, *_ in rules),
            parts=tuple(tuple(part) for part in declared_parts or ()),
        )

    def metadata(self) -> dict[str, Any]:
        """The skeleton as fields for ``MetadataCatalog.get(name).set(**...)``."""
        return {
            "keypoint_names": list(self.keypoints),
            "keypoint_flip_map": list(self.flips),
            "keypoint_connection_rules": self._colored_edges(),
            "keypoint_oks_sigmas": list(self.sigmas),
            "keypoint_parts": [list(part) for part in self.parts],
        }

    def _colored_edges(self) -> list[tuple[str, str, tuple[int, int, int]]]:
        """The edges with RGB colors by body side, to distinguish left and right in drawings."""
        sides = {left: "left" for left, _ in self.flips} | {
            right: "right" for _, right in self.flips
        }
        sides |= sides_by_name(self.keypoints)
        edges = []
        for start, end in self.edges:
            ends = {sides[name] for name in (start, end) if name in sides}
            color = _SIDE_COLORS[ends.pop()] if len(ends) == 1 else _MIDDLE_COLOR
            edges.append((start, end, color))
        return edges


COCO_SKELETON = Skeleton(**known_skeletons.COCO)
"""COCO's seventeen keypoints in the seven parts of the paper."""

CROWDPOSE_SKELETON = Skeleton(**known_skeletons.CROWDPOSE)
"""CrowdPose's fourteen keypoints; head and neck are a part in place of COCO's face."""

_KNOWN = {known.keypoints: known for known in (COCO_SKELETON, CROWDPOSE_SKELETON)}
