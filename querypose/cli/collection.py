"""The images of a large collection: a folder, a list, a file in COCO's format or a dataset."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from querypose.cli.formats import Kind, image_suffixes
from querypose.cli.inputs import Input, image_ids
from querypose.cli.progress import report

COMMAND = "querypose-predict"
# Images that are looked for before the work.
_NUM_TRIED = 20
# Images whose content tells a collection from another one with the same names.
_NUM_COMPARED = 100


class CollectedImage(NamedTuple):
    """An image of a collection.

    Attributes:
        image_id: of its results.
        file_name: relative to the folder of the images.
        path: where it lies.
    """

    image_id: int | str
    file_name: str
    path: str


@dataclass(frozen=True)
class Collection:
    """Images in a fixed order.

    Attributes:
        images: with distinct ids.
        label_file: that the results can be evaluated with; "" if there is none.
    """

    images: list[CollectedImage]
    label_file: str = ""

    def digest(self) -> str:
        """A text that other ids, names, images or another order change.

        The frames of two videos have the same names. So the content of a hundred images counts,
        too, wherever they lie.
        """
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(json.dumps([image.image_id, image.file_name]).encode())
        for image in self.images[:: -(-len(self.images) // _NUM_COMPARED)]:
            digest.update(hashlib.sha256(_content(image.path)).digest())
        return f"{len(self.images)} images, {digest.hexdigest()}"


def find_collection(source: str, image_root: str | None = None) -> Collection:
    """Finds the images that an argument names.

    Args:
        source: a folder, whose images are taken with those of its subfolders, by name; a file that
            ends with .json, in COCO's format, annotations or not; any other file, with a path a
            line; or the name of a registered dataset.
        image_root: the folder that the names in a file are relative to; None takes the folder of a
            JSON file, and the current folder for a list.

    Raises:
        FileNotFoundError: the source does not exist, or none of its first images does.
        OSError: a file cannot be read.
        ValueError: the source names no images, is not in COCO's format, or repeats an id.
    """
    path = Path(source)
    if path.is_dir():
        return _numbered(path, _walk(path), f"The folder {source} holds no images.")
    if not path.is_file():
        return _dataset(source)
    if path.suffix.lower() == ".json":
        return _check_presence(_coco(path, Path(image_root or path.parent)), source)
    names = dict.fromkeys(line.strip() for line in _read_list(path) if line.strip())
    return _check_presence(
        _numbered(Path(image_root or "."), iter(names), f"The list {source} is empty."), source
    )


def _content(path: str) -> bytes:
    """The content of a file; nothing where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _read_list(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no list of images: name a folder, or a text file with a path a line."
        ) from error


def _walk(folder: Path) -> Iterator[str]:
    suffixes = image_suffixes()
    top = os.path.realpath(folder)
    visited: set[str] = set()

    def pass_over(error: OSError) -> None:
        # Such as lost+found, which belongs to the system.
        if not isinstance(error, PermissionError) or error.filename == str(folder):
            raise error
        report(f"Passed over: {error.filename} cannot be read ({error.strerror}).", COMMAND)

    for root, folders, files in os.walk(folder, onerror=pass_over, followlinks=True):
        place = os.path.realpath(root)
        if place in visited or (place != top and _leads_back(root, top)):
            folders.clear()
            continue
        visited.add(place)
        # Names that start with a dot are hidden.
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(files):
            if name[0] != "." and Path(name).suffix.lower() in suffixes:
                yield os.path.relpath(os.path.join(root, name), folder)


def _leads_back(path: str, top: str) -> bool:
    """Whether a link shows a folder of the collection again, or one that holds it."""
    if not os.path.islink(path):
        return False
    place = Path(os.path.realpath(path))
    parent = os.path.realpath(os.path.dirname(path))
    if any(Path(inside).is_relative_to(place) for inside in (top, parent)):
        return True
    # What is hidden is shown by the link alone.
    return place.is_relative_to(top) and not any(
        name.startswith(".") for name in place.relative_to(top).parts
    )


def _numbered(root: Path, names: Iterator[str], why_nothing: str) -> Collection:
    inputs = [Input(Kind.IMAGE, name) for name in names]
    if not inputs:
        raise ValueError(why_nothing)
    image_id_of = image_ids(inputs)
    return Collection(
        [
            CollectedImage(image_id_of(item, count), item.source, os.path.join(root, item.source))
            for count, item in enumerate(inputs)
        ]
    )


def _coco(file: Path, root: Path) -> Collection:
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    rows = content.get("images") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{file} is not in COCO's format: it has no list of images.")
    images = [_coco_image(row, root, file) for row in rows]
    if len({image.image_id for image in images}) < len(images):
        raise ValueError(f"{file} gives an image id twice; give every image an id of its own.")
    return Collection(images, label_file=str(file) if content.get("annotations") else "")


def _coco_image(row: Any, root: Path, file: Path) -> CollectedImage:
    image_id = row.get("id") if isinstance(row, dict) else None
    if type(image_id) not in (int, str) or not isinstance(row.get("file_name"), str):
        raise ValueError(f"{file} has an image without id or file_name: {row!r:.80}.")
    return CollectedImage(image_id, row["file_name"], os.path.join(root, row["file_name"]))


def _dataset(name: str) -> Collection:
    # Loads PyTorch, which takes seconds.
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from querypose.data.datasets.records import load_records

    if name not in DatasetCatalog:
        raise FileNotFoundError(
            f"There is no file or folder {name}, and no dataset is registered by this name "
            "(DATASETS.REGISTER)."
        )
    metadata = MetadataCatalog.get(name)
    root = metadata.get("image_root") or ""
    records = load_records(name)
    images = [
        CollectedImage(row["image_id"], _relative(row["file_name"], root), row["file_name"])
        for row in records
    ]
    return Collection(images, label_file=metadata.get("json_file") or "")


def _relative(file_name: str, root: str) -> str:
    return os.path.relpath(file_name, root) if root and "://" not in file_name else file_name


def _check_presence(collection: Collection, source: str) -> Collection:
    first = collection.images[:_NUM_TRIED]
    if not any("://" in image.path or os.path.exists(image.path) for image in first):
        raise FileNotFoundError(
            f"None of the first images of {source} is there, such as {first[0].path}: name the "
            "folder of the images with --image-root."
        )
    return collection
