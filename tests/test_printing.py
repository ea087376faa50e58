from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SCRIPT = "import sys; from querypose.printing import print_text; print_text(sys.argv[1])"


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("utf-8:strict", b"caf\xe9.jpg", rb"caf\udce9.jpg"),
        ("utf-8:strict", "café.jpg".encode(), "café.jpg".encode()),
        ("latin-1:strict", "山.jpg".encode(), rb"\u5c71.jpg"),
    ],
)
def test_any_file_name_is_printed(encoding, text, printed, repository):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, text],
        env=os.environ
        | {"PYTHONPATH": str(repository), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
        capture_output=True,
    )
    assert done.stdout == printed + os.linesep.encode(), done.stderr
