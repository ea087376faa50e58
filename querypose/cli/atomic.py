"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PartialFile:
    """A file in the making, beside the one that it will replace.

    Attributes:
        target: where it will stand.
        path: where it is written, with the same suffix.
    """

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.path = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")

    def commit(self) -> None:
        """Puts the file in its place."""
        os.replace(self.path, self.target)

    def discard(self) -> None:
        """Removes what was written; a former file of the target's name stays."""
        self.path.unlink(missing_ok=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yields a path to write to, which becomes ``target`` unless the block raises."""
    file = PartialFile(target)
    try:
        yield file.path
        file.commit()
    finally:
        file.discard()
