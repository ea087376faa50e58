"""The JSON files of the demo: a plain one with one line per frame, and results in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from querypose.atomic_files import atomic_file
from querypose.cli.outputs import json_files
from querypose.inference.prediction import PosePrediction
from querypose.skeleton import Skeleton


class ListWriter:
    """Writes a JSON list item by item: the results of a long video would not fit in memory.

    Args:
        file: open for writing.
        opening: what comes before the first item.
        ending: what comes after the last one.
    """

    def __init__(self, file: IO[str], opening: str = "[", ending: str = "\n]\n") -> None:
        self._file = file
        self._ending = ending
        self._separator = "\n"
        file.write(opening)

    def append(self, item: Any) -> None:
        """Writes an item on a line of its own."""
        self._file.write(self._separator + json.dumps(item))
        self._separator = ",\n"

    def finish(self) -> None:
        """Ends the list."""
        self._file.write(self._ending)


class PoseRecords:
    """Writes predictions to two files.

    ``NAME.json`` holds ``keypoint_names`` and ``frames``: per frame ``image_id``, ``source``, in
    videos ``frame`` (from 0) and ``time`` (seconds since the start), and the keys of
    :meth:`PosePrediction.to_json`. ``NAME.coco.json`` holds results in COCO's format, see
    :meth:`PosePrediction.to_coco`.
    """

    def __init__(self, plain: IO[str], coco: IO[str], skeleton: Skeleton) -> None:
        names = json.dumps(skeleton.keypoints)
        self._plain = ListWriter(plain, f'{{"keypoint_names": {names},\n"frames": [', "\n]}\n")
        self._coco = ListWriter(coco)

    def add(self, origin: dict[str, Any], prediction: PosePrediction) -> None:
        """Adds a frame.

        Args:
            origin: ``image_id``, ``source`` and, in videos, ``frame`` and ``time``.
            prediction: of the frame.
        """
        self._plain.append(origin | prediction.to_json())
        for result in prediction.to_coco(origin["image_id"]):
            self._coco.append(result)

    def finish(self) -> None:
        """Ends both lists."""
        self._plain.finish()
        self._coco.finish()


@contextmanager
def open_records(target: Path, skeleton: Skeleton) -> Iterator[PoseRecords]:
    """Records that appear as :func:`json_files` when the block ends without an error."""
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_file(path)) for path in json_files(target)]
        with paths[0].open("w") as plain, paths[1].open("w") as coco:
            records = PoseRecords(plain, coco, skeleton)
            yield records
            records.finish()
