"""What the demo was asked to look at."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

PICTURE_SUFFIXES = frozenset(
    [
        *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif"),
        *(".tiff", ".webp"),
    ]
)
VIDEO_SUFFIXES = frozenset(
    [
        *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv"),
        *(".webm", ".wmv"),
    ]
)


class Kind(Enum):
    """What an input gives: one picture, or frames."""

    PICTURE = "picture"
    VIDEO = "video"
    WEBCAM = "webcam"


@dataclass(frozen=True)
class Input:
    """A picture, a video or a webcam.

    Attributes:
        kind: which of them.
        source: the path; of a webcam, its number.
    """

    kind: Kind
    source: str

    @property
    def is_stream(self) -> bool:
        """Whether it gives frames."""
        return self.kind is not Kind.PICTURE


def find_inputs(arguments: Sequence[str], stdin: Iterable[str]) -> tuple[list[Input], list[str]]:
    """Turns the command's arguments into inputs.

    Args:
        arguments: files, folders (their pictures and videos by name, not their subfolders),
            patterns of both, or "-" for one path a line of ``stdin``.
        stdin: lines.

    Returns:
        Inputs in order, each once, and a sentence for each argument that gives none.
    """
    inputs: list[Input] = []
    problems: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = [line.strip() for line in stdin]
            found, missing = find_inputs([line for line in lines if line and line != "-"], ())
            inputs += found
            problems += missing
            continue
        found = _expand(argument)
        inputs += found
        if not found:
            problems.append(_why_nothing(argument))
    return list(dict.fromkeys(inputs)), problems


def _expand(argument: str) -> list[Input]:
    path = Path(argument)
    # An empty argument, from a shell's unset variable, is not meant as the current folder.
    if argument and path.exists():
        return _at(path)
    if not glob.has_magic(argument):
        return []
    matches = sorted(glob.glob(argument, recursive=True))
    return [item for match in matches for item in _at(Path(match))]


def _at(path: Path) -> list[Input]:
    """A file, whatever it holds, or a folder's pictures and videos."""
    if not path.is_dir():
        return [_input(path)]
    files = sorted(file for file in path.iterdir() if file.is_file())
    return [_input(file) for file in files if _is_media(file)]


def _why_nothing(argument: str) -> str:
    if argument and Path(argument).is_dir():
        return f"The folder {argument} holds no pictures or videos."
    if glob.has_magic(argument):
        return f"Nothing matches {argument}."
    return f"There is no file {argument or repr(argument)}."


def _is_media(path: Path) -> bool:
    # A dot in front hides a file: another demo's unfinished output, for one.
    suffix = path.suffix.lower()
    return suffix in PICTURE_SUFFIXES | VIDEO_SUFFIXES and not path.name.startswith(".")


def _input(path: Path) -> Input:
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    return Input(Kind.VIDEO if is_video else Kind.PICTURE, str(path))


def image_ids(inputs: Sequence[Input]) -> Callable[[Input, int], int]:
    """How ``image_id`` is given: by file name for COCO's numbered pictures, else by counting.

    Returns:
        A function of an input and of how many frames came before it.
    """
    stems = [Path(item.source).stem for item in inputs]
    numbered = all(
        item.kind is Kind.PICTURE and stem.isdecimal()
        for item, stem in zip(inputs, stems, strict=True)
    ) and len({int(stem) for stem in stems}) == len(stems)
    if numbered:
        return lambda item, _: int(Path(item.source).stem)
    return lambda _, count: count + 1
