"""Under which names the demo's files go."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from querypose.cli.formats import VIDEO_SUFFIXES, Kind, image_suffixes
from querypose.cli.inputs import Input
from querypose.cli.video import CODECS

WRITABLE_IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def plan_outputs(
    output: str, inputs: Sequence[Input], *, attention: bool = False
) -> dict[Input, Path]:
    """Names a drawing for every input, each once.

    Args:
        output: a folder, or a file if there is one input; "" for no drawings.
        inputs: distinct.
        attention: every drawing has an :func:`attention_target` beside it.

    Raises:
        ValueError: one file for several inputs or of the wrong kind.
    """
    if not output:
        return {}
    if _is_folder(output):
        targets = _in_folder(Path(output), inputs, attention)
    elif len(inputs) > 1:
        raise ValueError(
            f"--output {output} is one file, but there are {len(inputs)} inputs: name a folder."
        )
    else:
        targets = {item: Path(output) for item in inputs}
    for item, target in targets.items():
        if target.suffix.lower() not in _writable(item):
            raise ValueError(
                f"--output {output} cannot hold a drawn {item.kind.value}; "
                f"let its name end with one of {', '.join(sorted(_writable(item)))}."
            )
    return targets


def attention_target(target: Path) -> Path:
    """Where the attention of the image goes whose drawing goes to ``target``."""
    return target.with_name(f"{target.stem}.attention{target.suffix}")


def check_targets(targets: Iterable[Path], inputs: Sequence[Input]) -> None:
    """Finds out before the work whether its results can be kept.

    Args:
        targets: the files that shall be written.
        inputs: which they must not replace.

    Raises:
        ValueError: a file would replace an input or another result, or cannot be written.
    """
    sources = {Path(item.source).resolve() for item in inputs if item.kind is not Kind.WEBCAM}
    taken: set[Path] = set()
    for target in targets:
        place = target.resolve()
        if place in sources:
            raise ValueError(f"{target} would replace an input: name another output.")
        if place in taken:
            raise ValueError(f"Two results would go to {target}: name another file for one.")
        taken.add(place)
        if target.is_dir():
            raise ValueError(f"{target} is a folder, and a file would go there: name another.")
        folder = next(parent for parent in place.parents if parent.exists())
        if not folder.is_dir():
            raise ValueError(f"{folder} is a file, so {target} cannot lie in it.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"Nothing may be written to the folder {folder}.")


def _is_folder(output: str) -> bool:
    path = Path(output)
    names_file = path.suffix.lower() in image_suffixes() | VIDEO_SUFFIXES
    return path.is_dir() or output.endswith(("/", "\\")) or not names_file


def _in_folder(folder: Path, inputs: Sequence[Input], attention: bool) -> dict[Input, Path]:
    """Drawings are called as their inputs; where that is taken or not writable, similarly."""
    names = {item: _name(item) for item in inputs}
    # An input whose name can stay has it before one that must change.
    order = sorted(inputs, key=lambda item: names[item].name != Path(item.source).name)
    targets: dict[Input, Path] = {}
    taken: set[Path] = set()
    for item in order:
        name = names[item]
        target, copies = folder / name, 1
        while taken.intersection(_files(target, attention)):
            copies += 1
            target = folder / f"{name.stem}-{copies}{name.suffix}"
        taken.update(_files(target, attention))
        targets[item] = target
    return targets


def _files(target: Path, attention: bool) -> list[Path]:
    return [target, attention_target(target)] if attention else [target]


def _name(item: Input) -> Path:
    if item.kind is Kind.WEBCAM:
        return Path(f"webcam{item.source}.mp4")
    name = Path(Path(item.source).name)
    if name.suffix.lower() in _writable(item):
        return name
    return name.with_suffix(".mp4" if item.is_stream else ".png")


def _writable(item: Input) -> Collection[str]:
    return CODECS if item.is_stream else WRITABLE_IMAGES
