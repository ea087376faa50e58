"""Under which names the demo's drawings go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from querypose.demo.inputs import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Input, Kind
from querypose.demo.video import CODECS

WRITABLE_PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def plan_outputs(output: str, inputs: Sequence[Input]) -> dict[Input, Path]:
    """Names a drawing for every input, each once, and never as an input itself.

    Args:
        output: a folder, or a file if there is one input; "" for no drawings.
        inputs: distinct.

    Raises:
        ValueError: one file for several inputs or of the wrong kind, or a drawing would replace
            its input.
    """
    if not output:
        return {}
    if _is_folder(output):
        targets = _in_folder(Path(output), inputs)
    elif len(inputs) > 1:
        raise ValueError(
            f"--output {output} is one file, but there are {len(inputs)} inputs: name a folder."
        )
    else:
        targets = {item: Path(output) for item in inputs}
    sources = {Path(item.source).resolve() for item in inputs if item.kind is not Kind.WEBCAM}
    for item, target in targets.items():
        if target.suffix.lower() not in _writable(item):
            raise ValueError(
                f"--output {output} cannot hold a drawn {item.kind.value}; "
                f"let its name end with one of {', '.join(sorted(_writable(item)))}."
            )
        if target.resolve() in sources:
            raise ValueError(f"A drawing would replace the input {target}: name another --output.")
    return targets


def _is_folder(output: str) -> bool:
    path = Path(output)
    names_file = path.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES
    return path.is_dir() or output.endswith(("/", "\\")) or not names_file


def _in_folder(folder: Path, inputs: Sequence[Input]) -> dict[Input, Path]:
    targets: dict[Input, Path] = {}
    taken: set[Path] = set()
    for item in inputs:
        name = _name(item)
        target, copies = folder / name, 1
        while target in taken:
            copies += 1
            target = folder / f"{name.stem}-{copies}{name.suffix}"
        taken.add(target)
        targets[item] = target
    return targets


def _name(item: Input) -> Path:
    if item.kind is Kind.WEBCAM:
        return Path(f"webcam{item.source}.mp4")
    name = Path(Path(item.source).name)
    if name.suffix.lower() in _writable(item):
        return name
    return name.with_suffix(".mp4" if item.is_stream else ".png")


def _writable(item: Input) -> Collection[str]:
    return CODECS if item.is_stream else WRITABLE_PICTURES
