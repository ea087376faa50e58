"""The inputs that the arguments of the demo name."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from querypose.cli.formats import VIDEO_SUFFIXES, Kind, detect_kind, image_suffixes

# Ignored files that a remark on a folder names.
_NUM_NAMED = 3


@dataclass(frozen=True)
class Input:
    """An image, an animation, a video or a webcam.

    Attributes:
        kind: which of them.
        source: the path, or the number of a webcam.
    """

    kind: Kind
    source: str

    @property
    def is_stream(self) -> bool:
        """Whether it consists of frames."""
        return self.kind is not Kind.IMAGE


@dataclass(frozen=True)
class FoundInputs:
    """What the arguments of the command name.

    Attributes:
        inputs: in order, each once.
        problems: a sentence for each argument that names no input.
        remarks: sentences on files and images that are ignored.
    """

    inputs: list[Input]
    problems: list[str]
    remarks: list[str]


def find_inputs(arguments: Sequence[str], stdin: Iterable[str]) -> FoundInputs:
    """Turns arguments into inputs.

    Args:
        arguments: files, folders (their images and videos sorted by name, without subfolders),
            patterns of both, or "-" for one path per line of ``stdin``.
        stdin: lines.
    """
    files: dict[Path, Path] = {}
    problems: list[str] = []
    remarks: dict[str, None] = {}
    for argument in _with_lines(arguments, stdin):
        found: list[Path] = []
        for path in _expand(argument):
            media, others = _split(path)
            found += media
            if others:
                remarks[_ignored(path, others)] = None
        for path in found:
            files.setdefault(_place(path), path)
        if not found:
            problems.append(_why_nothing(argument))
    kinds = {file: detect_kind(file) for file in files.values()}
    inputs = [Input(kind, str(file)) for file, (kind, _) in kinds.items()]
    return FoundInputs(inputs, problems, [*remarks, *(text for _, text in kinds.values() if text)])


def _with_lines(arguments: Sequence[str], stdin: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from (line for line in map(str.strip, stdin) if line not in ("", "-"))
        else:
            yield argument


def _expand(argument: str) -> list[Path]:
    # An empty argument comes from an unset shell variable and does not mean the current folder.
    if argument and Path(argument).exists():
        return [Path(argument)]
    if not glob.has_magic(argument):
        return []
    return [Path(match) for match in sorted(glob.glob(argument, recursive=True))]


def _split(path: Path) -> tuple[list[Path], list[Path]]:
    """The path itself if it is a file; of a folder, the images and videos, and the other files."""
    if not path.is_dir():
        return [path], []
    # Files whose names start with a dot are hidden.
    files = sorted(file for file in path.iterdir() if _is_listed(file) and file.name[0] != ".")
    suffixes = image_suffixes() | VIDEO_SUFFIXES
    media = [file for file in files if file.suffix.lower() in suffixes]
    return media, [file for file in files if file.suffix.lower() not in suffixes]


def _is_listed(file: Path) -> bool:
    # Links that lead nowhere stay, so that the user hears of them.
    return file.is_file() or (file.is_symlink() and not file.exists())


def _place(path: Path) -> Path:
    """The same for all paths of a file; a link is a file of its own."""
    return Path(os.path.realpath(path.parent), path.name)


def _ignored(folder: Path, files: Sequence[Path]) -> str:
    names = ", ".join([file.name for file in files[:_NUM_NAMED]])
    if len(files) > _NUM_NAMED:
        names += f" and {len(files) - _NUM_NAMED} more"
    return f"Ignored in {folder}, as neither images nor videos: {names}."


def _why_nothing(argument: str) -> str:
    if argument and Path(argument).is_dir():
        return f"The folder {argument} holds no images or videos."
    if glob.has_magic(argument):
        return f"Nothing matches {argument}."
    return f"There is no file {argument or repr(argument)}."


def image_ids(inputs: Sequence[Input]) -> Callable[[Input, int], int]:
    """Chooses how to assign ``image_id``: numbered images keep their number, others are counted.

    Returns:
        A function of an input and the number of frames before it.
    """
    stems = [Path(item.source).stem for item in inputs]
    numbered = all(
        item.kind is Kind.IMAGE and stem.isdecimal()
        for item, stem in zip(inputs, stems, strict=True)
    ) and len({int(stem) for stem in stems}) == len(stems)
    if numbered:
        return lambda item, _: int(Path(item.source).stem)
    return lambda _, count: count + 1
