"""Results of a collection in shards, each of which is complete or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from querypose.atomic_files import atomic_file, replace_file
from querypose.cli.collection import CollectedImage
from querypose.cli.outputs import collection_files
from querypose.cli.records import ListWriter

Row = dict[str, Any]


class Merged(NamedTuple):
    """What all shards hold together.

    Attributes:
        num_people: in the results.
        num_skipped: images that could not be read.
    """

    num_people: int
    num_skipped: int


class ShardFolder:
    """The shards of a collection and what they are merged into.

    ``shards/00000.json`` holds ``results`` in COCO's format and ``skipped``, the images that could
    not be read, of the first ``shard_size`` images, and so on. ``results.json``, ``images.json``
    and ``skipped.json`` hold all results, images and skipped images; they are written when every
    shard is there. ``run.json`` holds the settings.

    Args:
        folder: of the output.
        num_images: of the collection.
        shard_size: images of a shard; the last one may have fewer.
    """

    def __init__(self, folder: Path, num_images: int, shard_size: int) -> None:
        self._shards = folder / "shards"
        self._num_images = num_images
        self._shard_size = shard_size
        files = collection_files(folder)
        self.results_file, self.images_file, self.skipped_file, self.settings_file = files

    @property
    def is_merged(self) -> bool:
        """Whether everything is merged; the shards are then no longer needed."""
        return self.results_file.is_file()

    @property
    def is_begun(self) -> bool:
        """Whether there are results, of this or another collection."""
        return self.is_merged or any(self._shards.glob("*.json"))

    def missing(self) -> list[int]:
        """Indices of the shards that are not there."""
        return [index for index in self._indices() if not self._file(index).is_file()]

    def slice_of(self, index: int) -> slice:
        """The images of a shard, within the collection."""
        start = index * self._shard_size
        return slice(start, min(start + self._shard_size, self._num_images))

    def write(self, index: int, results: Sequence[Row], skipped: Sequence[Row]) -> None:
        """Writes a shard; it appears whole."""
        content = json.dumps({"skipped": list(skipped), "results": list(results)})
        replace_file(self._file(index), lambda file: file.write(content.encode()))

    def merge(self, images: Sequence[CollectedImage]) -> Merged:
        """Writes the files of the whole collection, shard by shard, in its order.

        Raises:
            ValueError: a shard is missing or damaged.
        """
        missing = self.missing()
        if missing:
            first = self._file(missing[0])
            raise ValueError(
                f"{len(missing)} shards are missing, {first} among them: if machines share no "
                "folder, copy the shards of all to this one; then run the command again."
            )
        rows = ({"id": image.image_id, "file_name": image.file_name} for image in images)
        _write_rows_atomically(self.images_file, rows)
        skipped: list[Row] = []
        # The results appear last: they say that all is done.
        with atomic_file(self.results_file) as path:
            num_people = _write_rows(path, self._results(skipped))
            _write_rows_atomically(self.skipped_file, skipped)
        self._remove_unfinished()
        return Merged(num_people, len(skipped))

    def _indices(self) -> range:
        return range(-(-self._num_images // self._shard_size))

    def _results(self, skipped: list[Row]) -> Iterator[Row]:
        """The results of all shards; appends the skipped images to a list."""
        for index in self._indices():
            shard = self._read(index)
            skipped += shard["skipped"]
            yield from shard["results"]

    def _file(self, index: int) -> Path:
        return self._shards / f"{index:05d}.json"

    def _read(self, index: int) -> Row:
        file = self._file(index)
        try:
            content = json.loads(file.read_text())
            return {key: content[key] for key in ("skipped", "results")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is no shard: delete it, and run the command again."
            ) from error

    def _remove_unfinished(self) -> None:
        """Removes what killed processes were writing; nobody writes any longer."""
        for folder in self._shards.glob(".*.partial"):
            shutil.rmtree(folder, ignore_errors=True)


def _write_rows_atomically(target: Path, rows: Iterable[Row]) -> None:
    with atomic_file(target) as path:
        _write_rows(path, rows)


def _write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes a JSON list, a row at a time, and returns its length."""
    length = 0
    with path.open("w") as file:
        writer = ListWriter(file)
        for row in rows:
            writer.append(row)
            length += 1
        writer.finish()
        file.flush()
        os.fsync(file.fileno())
    return length
