from __future__ import annotations

import pytest

from querypose.atomic_files import atomic_file, replace_file


def test_a_file_appears_at_the_end_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with atomic_file(target) as path:
        path.write_text("one")
        assert path.suffix == ".txt" and not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(RuntimeError), atomic_file(target) as path:
        path.write_text("two")
        raise RuntimeError
    assert target.read_text() == "one" and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("letter", ["x", "山"])
def test_names_may_be_as_long_as_the_file_system_allows(letter, tmp_path):
    name = letter * (250 // len(letter.encode())) + ".txt"
    with atomic_file(tmp_path / name) as path:
        path.write_text("one")
        assert path.name == name
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path):
    target = tmp_path / "model.pth"
    replace_file(target, lambda file: file.write(b"one"))
    assert target.read_bytes() == b"one"

    def fail(file):
        file.write(b"two")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(target, fail)
    assert target.read_bytes() == b"one" and list(tmp_path.iterdir()) == [target]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    target = tmp_path / "file.txt"
    with atomic_file(target) as first, atomic_file(target) as second:
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first" and list(tmp_path.iterdir()) == [target]
