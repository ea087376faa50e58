"""Printing what may name files."""

from __future__ import annotations

import sys


def print_text(text: str) -> None:
    """Prints a text; characters that standard output cannot hold are written as escapes.

    A file name may have bytes that are no UTF-8, and a terminal may know few letters.
    """
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
