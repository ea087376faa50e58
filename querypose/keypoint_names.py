"""Keypoints as files and metadata refer to them: by name, by number, in pairs and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Pair = tuple[str, str]


def names_from(values: Any) -> tuple[str, ...]:
    """Keypoint names as texts; whole numbers are names, too.

    Raises:
        ValueError: there is no list of names.
    """
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"keypoints are a list of names, not {values!r:.50}")
    for value in values:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ValueError(f"a keypoint's name is a text or a whole number, not {value!r:.50}")
    return tuple(map(str, values))


def groups_from(
    groups: Sequence[Sequence[str | int]] | None, names: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Groups of keypoints, such as pairs, as groups of names.

    A text is a name. A number is a 0-based index, unless a keypoint is named by a number: then
    every number is a name.

    Args:
        groups: of names and numbers; None is no group.
        names: of all keypoints.

    Raises:
        ValueError: a group is no list, or a number is no keypoint's.
    """
    if not isinstance(groups or (), (list, tuple)):
        raise ValueError(f"groups of keypoints are a list of lists, not {groups!r:.50}")
    numbered = any(name.isdecimal() for name in names)
    return tuple(_group_from(group, names, numbered) for group in groups or ())


def _group_from(group: Any, names: Sequence[str], numbered: bool) -> tuple[str, ...]:
    if not isinstance(group, (list, tuple)):
        raise ValueError(f"a group of keypoints is a list, not {group!r:.50}")
    members = []
    for item in group:
        if not _is_whole_number(item):
            members.append(str(item))
        elif numbered:
            if str(item) not in names:
                raise ValueError(f"no keypoint is named {item}; numbers are names here, as {names}")
            members.append(str(item))
        elif 0 <= item < len(names):
            members.append(names[item])
        else:
            raise ValueError(f"keypoint index {item} is outside 0..{len(names) - 1}")
    return tuple(members)


def edges_of_coco_category(edges: Any, names: Sequence[str]) -> tuple[Pair, ...]:
    """The ``skeleton`` of a category in COCO's format, by names.

    Its numbers are places in the list of keypoints, whatever these are called. They count from 1;
    where a 0 is among them, they count from 0.

    Raises:
        ValueError: an edge does not join two keypoints.
    """
    if not isinstance(edges or (), (list, tuple)):
        raise ValueError(f"its skeleton is {edges!r:.50}, not a list of pairs")
    for edge in edges or ():
        pair = isinstance(edge, (list, tuple)) and len(edge) == 2
        if not pair or not all(map(_is_whole_number, edge)) or edge[0] == edge[1]:
            raise ValueError(f"edge {edge!r:.50} of its skeleton is not two different integers")
    zeros = [edge for edge in edges or () if 0 in edge]
    first = 0 if zeros else 1
    last = first + len(names) - 1
    counted = f"counted from {first}" + (f" as edge {zeros[0]} does" if zeros else "")
    for edge in edges or ():
        if not all(first <= end <= last for end in edge):
            raise ValueError(
                f"edge {edge!r:.50} of its skeleton leaves the keypoints {first}..{last}, {counted}"
            )
    return tuple((names[start - first], names[end - first]) for start, end in edges or ())


def distinct_pairs(pairs: Sequence[Sequence[Any]]) -> tuple[Pair, ...]:
    """Each exchange once: Detectron2 also takes both directions, and a name with itself."""
    named = [(str(left), str(right)) for left, right in pairs]
    distinct = {frozenset(pair): pair for pair in reversed(named)}
    return tuple(pair for pair in reversed(distinct.values()) if pair[0] != pair[1])


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
