"""Atomic writes: a reader sees the old file or the new one, whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

# In bytes. File systems allow 255 for a name, and the hidden folder adds 18 to what it keeps of it.
_LONGEST_PREFIX = 64


class PartialFile:
    """An unfinished file in a hidden folder beside its target; missing parent folders are made.

    Attributes:
        target: where the finished file goes.
        path: where to write it. It has the target's name, since encoders go by the suffix, and is
            absolute, since FFmpeg takes "12:" at the start of a path for a protocol.
    """

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._folder = TemporaryDirectory(
            dir=target.parent.absolute(),
            prefix=f".{_beginning(target.name)}.",
            suffix=".partial",
        )
        self.target = target
        self.path = Path(self._folder.name, target.name)

    def commit(self) -> None:
        """Replaces the target."""
        self.path.replace(self.target)

    def discard(self) -> None:
        """Removes the hidden folder with whatever is in it."""
        self._folder.cleanup()


def _beginning(name: str) -> str:
    return os.fsencode(name)[:_LONGEST_PREFIX].decode(errors="ignore")


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yields a path to write to; the file replaces ``target`` unless the block raises."""
    file = PartialFile(target)
    try:
        yield file.path
        file.commit()
    finally:
        file.discard()


def replace_file(target: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replaces a file by what ``write`` writes, which is on disk before the old one goes."""
    with atomic_file(target) as path, path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
