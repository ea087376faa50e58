"""Finds the keypoints that mirror each other, by their names.

A name is split into words: ``l_small_toe``, ``LSmallToe`` and ``L small-toe`` have the same three.
Two keypoints mirror each other if their names differ only in words for the side.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from detectron2.utils.logger import log_first_n

Words = tuple[str, ...]
MirrorWord = Callable[[str], str | None]
"""Maps a word to the same word of the other side; None if it names no side."""

# Capitals before a capitalized word, a capitalized or lower-case word, capitals, or a number.
_WORD = re.compile(
    r"[A-Z]+(?=[A-Z][^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|[A-Z]+|\d+",
)
_OTHER_SIDE = {"left": "right", "right": "left"}
_OTHER_ABBREVIATION = {"l": "r", "r": "l", "lt": "rt", "rt": "lt", "lft": "rgt", "rgt": "lft"}
_SIDES = _OTHER_SIDE.keys() | _OTHER_ABBREVIATION.keys()

# Words that a letter for the side may be joined to, as in "lelb" and "elbowl". These words are not
# split themselves: "leg" is not a left "eg".
_BODY = """
    ankle antler arm armpit back biceps breast brow buttock calf cheek chest chin clavicle claw
    collar ear elbow eye face fin finger flank foot front hand head heel hind hip hoof horn index
    jaw knee knuckle leg lid limb lip lobe lung middle mouth nail neck nose nostril palm paw pelvis
    pinky radius rib ring rump scapula shin shoulder side skull sole tail temple thigh thumb tibia
    toe torso ulna wing wrist
"""
_BODY_WORDS = frozenset(_BODY.split())
_SHORTEST_ABBREVIATION = 3
_NAMES_IN_A_WARNING = 6


def flips_by_name(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Finds the pairs of keypoints that a horizontal flip exchanges.

    The side may be a word of its own (``left_eye``, ``eyeLeft``), part of a word (``lefteye``), a
    single letter (``L-EYE``, ``eye.l``, ``lEye``) or a letter joined to a word (``LELB``); they are
    tried in this order. A joined letter counts only if the rest of the word starts like a part of
    the body, or if another pair of names has its letter at the same end. Names that could be paired
    in two ways are not paired.

    Returns:
        Each pair once, the left name first, in the order of the left names.
    """
    words = {name: _words(name) for name in names}
    pairs: dict[str, str] = {}
    for mirror_word in (_OTHER_SIDE.get, _mirror_prefix_or_suffix, _OTHER_ABBREVIATION.get):
        pairs |= _pairs(_without(words, pairs), mirror_word)
    unmarked = {
        name: split for name, split in _without(words, pairs).items() if _SIDES.isdisjoint(split)
    }
    pairs |= _joined_letter_pairs(unmarked)
    return tuple((name, pairs[name]) for name in names if name in pairs)


def find_flips(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Like :func:`flips_by_name`, and warns, once per set of names, if pairs may be missing.

    That is the case if there is no pair at all, if a name with a side has no partner, or if names
    without a partner differ in a number alone: most numbered points lie on both sides of a face.
    """
    flips = flips_by_name(names)
    paired = {name for pair in flips for name in pair}
    unpaired = [name for name in sides_by_name(names) if name not in paired]
    if flips:
        known = {*paired, *unpaired}
        unpaired += _numbered(name for name in names if name not in known)
    if (flips or len(names) < 2) and not unpaired:
        return flips
    doubtful = [repr(name) for name in unpaired or names]
    more = ", ..." if len(doubtful) > _NAMES_IN_A_WARNING else ""
    log_first_n(
        logging.WARNING,
        f"No flip pair was found for the keypoints {', '.join(doubtful[:_NAMES_IN_A_WARNING])}"
        f"{more} by their names: in a mirrored image each of them keeps its name. Where that is "
        "wrong, declare the pairs as flips: [[left, right], ...] in a skeleton file, or as "
        "Skeleton(flips=...).",
        key="message",
    )
    return flips


def _numbered(names: Iterable[str]) -> list[str]:
    """The names that differ from another one in a number alone."""
    alike: dict[Words, list[str]] = defaultdict(list)
    for name in names:
        words = _words(name)
        rest = tuple(word for word in words if not word.isdecimal())
        if rest != words:
            alike[rest].append(name)
    return [name for group in alike.values() if len(group) > 1 for name in group]


def sides_by_name(names: Sequence[str]) -> dict[str, str]:
    """``"left"`` or ``"right"`` for every name that contains a side, with or without a partner."""
    sides = {name: side for name in names if (side := split_side(name)[0])}
    for left, right in flips_by_name(names):
        sides |= {left: "left", right: "right"}
    return sides


def split_side(name: str) -> tuple[str, str]:
    """Splits ``"left_small_toe"`` into ``("left", "small toe")``.

    The side is ``""`` where no word of its own names it; all words are then in the rest.
    """
    words = _words(name)
    initials = {word[0] for word in _SIDES.intersection(words)}
    if len(initials) != 1:
        return "", " ".join(words)
    rest = " ".join(word for word in words if word not in _SIDES)
    return "left" if initials == {"l"} else "right", rest


def _words(name: str) -> Words:
    return tuple(word.lower() for word in _WORD.findall(name))


def _mirror_prefix_or_suffix(word: str) -> str | None:
    for side, other in _OTHER_SIDE.items():
        if word.startswith(side):
            return other + word.removeprefix(side)
        if word.endswith(side):
            return word.removesuffix(side) + other
    return None


def _mirror_first_letter(word: str) -> str | None:
    if word[0] not in "lr" or len(word) == 1 or word in _BODY_WORDS:
        return None
    return _OTHER_ABBREVIATION[word[0]] + word[1:]


def _mirror_last_letter(word: str) -> str | None:
    if word[-1] not in "lr" or len(word) == 1 or word in _BODY_WORDS:
        return None
    return word[:-1] + _OTHER_ABBREVIATION[word[-1]]


def _without(words: Mapping[str, Words], pairs: Mapping[str, str]) -> dict[str, Words]:
    paired = {*pairs, *pairs.values()}
    return {name: split for name, split in words.items() if name not in paired}


def _pairs(words: Mapping[str, Words], mirror_word: MirrorWord) -> dict[str, str]:
    """Maps left names to their right partners, if neither has another partner."""
    names: dict[Words, list[str]] = defaultdict(list)
    for name, split in words.items():
        names[split].append(name)
    partners = {
        name: [
            other for mirrored in _mirrored(split, mirror_word, names) for other in names[mirrored]
        ]
        for name, split in words.items()
    }
    return {
        name: others[0]
        for name, others in partners.items()
        # "l" comes before "r".
        if len(others) == 1 and partners[others[0]] == [name] and words[name] < words[others[0]]
    }


def _mirrored(words: Words, mirror_word: MirrorWord, known: Mapping[Words, object]) -> list[Words]:
    """The known names of the other side: with all side words mirrored, or else with one of them."""
    mirrored_words = [mirror_word(word) for word in words]
    positions = [index for index, other in enumerate(mirrored_words) if other is not None]
    all_mirrored = tuple(other or word for other, word in zip(mirrored_words, words, strict=True))
    if not positions:
        return []
    if all_mirrored in known:
        return [all_mirrored]
    one_mirrored = [(*words[:i], all_mirrored[i], *words[i + 1 :]) for i in positions]
    return [mirrored for mirrored in one_mirrored if mirrored in known]


def _joined_letter_pairs(words: Mapping[str, Words]) -> dict[str, str]:
    first, last = _pairs(words, _mirror_first_letter), _pairs(words, _mirror_last_letter)
    pairs: dict[str, str] = {}
    for found, others, end in ((first, last, slice(1, None)), (last, first, slice(-1))):
        ambiguous = {*others, *others.values()}
        certain = {left: right for left, right in found.items() if not {left, right} & ambiguous}
        for left, right in certain.items():
            rests = [
                word[end]
                for word, other in zip(words[left], words[right], strict=True)
                if word != other
            ]
            if len(certain) > 1 or any(map(_starts_like_body_word, rests)):
                pairs[left] = right
    return pairs


def _starts_like_body_word(word: str) -> bool:
    """Whether a word starts with a part of the body or abbreviates one."""
    abbreviates = len(word) >= _SHORTEST_ABBREVIATION and any(
        body_word.startswith(word) for body_word in _BODY_WORDS
    )
    return abbreviates or any(word.startswith(body_word) for body_word in _BODY_WORDS)
