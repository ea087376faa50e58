"""What the demo was asked to look at."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from querypose.cli.formats import VIDEO_SUFFIXES, Kind, image_suffixes, look_inside

# Of the files that a folder's remark names.
_NUM_NAMED = 3


@dataclass(frozen=True)
class Input:
    """An image, an animation, a video or a webcam.

    Attributes:
        kind: which of them.
        source: the path; of a webcam, its number.
    """

    kind: Kind
    source: str

    @property
    def is_stream(self) -> bool:
        """Whether it gives frames."""
        return self.kind is not Kind.IMAGE


@dataclass(frozen=True)
class Findings:
    """What the command's arguments lead to.

    Attributes:
        inputs: in order, each once.
        problems: a sentence for each argument that gives no input.
        remarks: sentences on what one might expect among the inputs, but is not.
    """

    inputs: list[Input]
    problems: list[str]
    remarks: list[str]


def find_inputs(arguments: Sequence[str], stdin: Iterable[str]) -> Findings:
    """Turns the command's arguments into inputs.

    Args:
        arguments: files, folders (their images and videos by name, not their subfolders),
            patterns of both, or "-" for one path a line of ``stdin``.
        stdin: lines.
    """
    files: dict[Path, None] = {}
    problems: list[str] = []
    remarks: dict[str, None] = {}
    for argument in _with_lines(arguments, stdin):
        found: list[Path] = []
        for path in _expand(argument):
            media, others = _split(path)
            found += media
            if others:
                remarks[_passed_over(path, others)] = None
        files |= dict.fromkeys(found)
        if not found:
            problems.append(_why_nothing(argument))
    looks = {file: look_inside(file) for file in files}
    inputs = [Input(kind, str(file)) for file, (kind, _) in looks.items()]
    return Findings(inputs, problems, [*remarks, *(text for _, text in looks.values() if text)])


def _with_lines(arguments: Sequence[str], stdin: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from (line for line in map(str.strip, stdin) if line not in ("", "-"))
        else:
            yield argument


def _expand(argument: str) -> list[Path]:
    # An empty argument, from a shell's unset variable, is not meant as the current folder.
    if argument and Path(argument).exists():
        return [Path(argument)]
    if not glob.has_magic(argument):
        return []
    return [Path(match) for match in sorted(glob.glob(argument, recursive=True))]


def _split(path: Path) -> tuple[list[Path], list[Path]]:
    """A file, whatever it holds, or a folder's images and videos; and its other files."""
    if not path.is_dir():
        return [path], []
    # A dot in front hides a file: another demo's unfinished output, for one.
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
    suffixes = image_suffixes() | VIDEO_SUFFIXES
    media = [file for file in files if file.suffix.lower() in suffixes]
    return media, [file for file in files if file.suffix.lower() not in suffixes]


def _passed_over(folder: Path, files: Sequence[Path]) -> str:
    names = ", ".join([file.name for file in files[:_NUM_NAMED]])
    if len(files) > _NUM_NAMED:
        names += f" and {len(files) - _NUM_NAMED} more"
    return f"Passed over in {folder}, as neither images nor videos: {names}."


def _why_nothing(argument: str) -> str:
    if argument and Path(argument).is_dir():
        return f"The folder {argument} holds no images or videos."
    if glob.has_magic(argument):
        return f"Nothing matches {argument}."
    return f"There is no file {argument or repr(argument)}."


def image_ids(inputs: Sequence[Input]) -> Callable[[Input, int], int]:
    """How ``image_id`` is given: by file name for COCO's numbered images, else by counting.

    Returns:
        A function of an input and of how many frames came before it.
    """
    stems = [Path(item.source).stem for item in inputs]
    numbered = all(
        item.kind is Kind.IMAGE and stem.isdecimal()
        for item, stem in zip(inputs, stems, strict=True)
    ) and len({int(stem) for stem in stems}) == len(stems)
    if numbered:
        return lambda item, _: int(Path(item.source).stem)
    return lambda _, count: count + 1
