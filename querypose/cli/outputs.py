"""Names of the files that the demo writes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from querypose.cli.formats import VIDEO_SUFFIXES, Kind, image_suffixes
from querypose.cli.inputs import Input

WRITABLE_IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
WRITABLE_STREAMS = frozenset({".avi", ".gif", ".mkv", ".mov", ".mp4"})


def plan_outputs(
    output: str, inputs: Sequence[Input], *, extras: Collection[str] = ()
) -> dict[Input, Path]:
    """Gives the drawing of every input a file name of its own.

    Args:
        output: a folder, or a file if there is one input; "" for no drawings.
        inputs: distinct.
        extras: what every drawing has beside it, see :func:`extra_target`.

    Raises:
        ValueError: ``output`` is one file for several inputs, or has the wrong suffix.
    """
    if not output:
        return {}
    if _is_folder(output):
        targets = _in_folder(Path(output), inputs, extras)
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


def extra_target(target: Path, extra: str) -> Path:
    """The file for the "attention" or "maps" of an image whose drawing goes to ``target``."""
    return target.with_name(f"{target.stem}.{extra}{target.suffix}")


def json_files(target: Path) -> list[Path]:
    """The plain file of ``--save-json`` and that in COCO's format."""
    return [target, target.with_suffix(".coco.json")]


def collection_files(folder: Path) -> list[Path]:
    """What a whole collection is written to: results, images, skipped images, and settings."""
    return [folder / f"{name}.json" for name in ("results", "images", "skipped", "run")]


def check_targets(targets: Iterable[Path], inputs: Sequence[Input]) -> None:
    """Checks before the work that its results can be written.

    Args:
        targets: the files to write.
        inputs: must not be replaced.

    Raises:
        ValueError: a file would replace an input or another result, or cannot be written.
    """
    sources = {_place(item.source) for item in inputs if item.kind is not Kind.WEBCAM}
    taken: set[Path] = set()
    for target in targets:
        place = _place(target)
        if place in sources:
            raise ValueError(f"{target} would replace an input: name another output.")
        if place in taken:
            raise ValueError(f"Two results would go to {target}: name another file for one.")
        taken.add(place)
        if target.is_dir():
            raise ValueError(f"{target} is a folder, so no file can go there: name another.")
        folder = next(parent for parent in place.parents if parent.exists())
        if not folder.is_dir():
            raise ValueError(f"{folder} is a file, so {target} cannot lie in it.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"The folder {folder} is not writable: name another output.")


def _place(path: str | Path) -> Path:
    # Path.resolve fails at links that lead to themselves.
    return Path(os.path.realpath(path))


def _is_folder(output: str) -> bool:
    path = Path(output)
    names_file = path.suffix.lower() in image_suffixes() | VIDEO_SUFFIXES
    return path.is_dir() or output.endswith(("/", "\\")) or not names_file


def _in_folder(folder: Path, inputs: Sequence[Input], extras: Collection[str]) -> dict[Input, Path]:
    """Names drawings like their inputs, with a number if the name is taken."""
    names = {item: _name(item) for item in inputs}
    # Inputs that can keep their name come before those that need another suffix.
    ordered = sorted(inputs, key=lambda item: names[item].name != Path(item.source).name)
    targets: dict[Input, Path] = {}
    taken: set[Path] = set()
    for item in ordered:
        name = names[item]
        target, number = folder / name, 1
        while taken.intersection(_files(target, extras)):
            number += 1
            target = folder / f"{name.stem}-{number}{name.suffix}"
        taken.update(_files(target, extras))
        targets[item] = target
    return targets


def _files(target: Path, extras: Collection[str]) -> list[Path]:
    return [target, *(extra_target(target, extra) for extra in extras)]


def _name(item: Input) -> Path:
    if item.kind is Kind.WEBCAM:
        return Path(f"webcam{item.source}.mp4")
    name = Path(Path(item.source).name)
    if name.suffix.lower() in _writable(item):
        return name
    return name.with_suffix(".mp4" if item.is_stream else ".png")


def _writable(item: Input) -> Collection[str]:
    return WRITABLE_STREAMS if item.is_stream else WRITABLE_IMAGES
