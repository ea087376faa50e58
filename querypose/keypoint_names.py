"""Converts references to keypoints, by name or by number, to names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

Pair = tuple[str, str]


def names_from(values: Any) -> tuple[str, ...]:
    """Converts a list of keypoint names, strings or integers, to strings.

    Raises:
        ValueError: ``values`` is not such a list.
    """
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"keypoints are a list of names, not {values!r:.50}")
    for value in values:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ValueError(f"a keypoint's name is a string or an integer, not {value!r:.50}")
    return tuple(map(str, values))


def groups_from(
    groups: Sequence[Sequence[str | int]] | None, names: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Converts groups of keypoints, such as pairs, to groups of names.

    A string is a name. A number is an index from 0, unless a keypoint is named by a number: then
    every number is a name.

    Args:
        groups: lists of names and numbers; None stands for no groups.
        names: the names of all keypoints.

    Raises:
        ValueError: a group is not a list, or a number is not a keypoint's.
    """
    groups = _listed(groups) or ()
    if not isinstance(groups, (list, tuple)):
        raise ValueError(f"groups of keypoints are a list of lists, not {groups!r:.50}")
    has_number_names = any(name.isdecimal() for name in names)
    return tuple(_group_from(_listed(group), names, has_number_names) for group in groups)


def _listed(values: Any) -> Any:
    """An array, a set or an iterator as a list; other values as they are."""
    if isinstance(values, Iterable) and not isinstance(values, (str, list, tuple)):
        return list(values)
    return values


def _group_from(group: Any, names: Sequence[str], has_number_names: bool) -> tuple[str, ...]:
    if not isinstance(group, (list, tuple)):
        raise ValueError(f"a group of keypoints is a list, not {group!r:.50}")
    members = []
    for item in group:
        if not _is_integer(item):
            members.append(str(item))
        elif has_number_names:
            if str(item) not in names:
                raise ValueError(f"no keypoint is named {item}; numbers are names here, as {names}")
            members.append(str(item))
        elif 0 <= item < len(names):
            members.append(names[item])
        else:
            raise ValueError(f"keypoint index {item} is outside 0..{len(names) - 1}")
    return tuple(members)


def edges_of_coco_category(edges: Any, names: Sequence[str]) -> tuple[Pair, ...]:
    """Converts the ``skeleton`` of a category in COCO's format to pairs of names.

    Its numbers are positions in the list of keypoints, even if keypoints are named by numbers. They
    count from 1, or from 0 if a 0 is among them.

    Raises:
        ValueError: an edge does not join two keypoints.
    """
    if not isinstance(edges or (), (list, tuple)):
        raise ValueError(f"its skeleton is {edges!r:.50}, not a list of pairs")
    for edge in edges or ():
        pair = isinstance(edge, (list, tuple)) and len(edge) == 2
        if not pair or not all(map(_is_integer, edge)) or edge[0] == edge[1]:
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
    """The distinct pairs of a Detectron2 flip map, which may list both directions or identities."""
    named = [(str(left), str(right)) for left, right in pairs]
    distinct = {frozenset(pair): pair for pair in reversed(named)}
    return tuple(pair for pair in reversed(distinct.values()) if pair[0] != pair[1])


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
