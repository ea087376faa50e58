"""Settings of work that takes several runs."""

from __future__ import annotations

import json

import pytest

from querypose.engine.kept_settings import begin_or_continue


def test_other_settings_are_refused(tmp_path):
    file = tmp_path / "settings.json"
    begin_or_continue(file, {"a": [1, 2], "b": "x"})
    begin_or_continue(file, {"a": (1, 2), "b": "x"})
    with pytest.raises(ValueError, match=r"other settings: b is 'y', but was 'x'; set it back"):
        begin_or_continue(file, {"a": [1, 2], "b": "y"})


def test_settings_that_another_version_has_or_lacks_do_not_matter(tmp_path):
    file = tmp_path / "settings.json"
    begin_or_continue(file, {"a": 1, "removed": 2})
    begin_or_continue(file, {"a": 1, "added": 3})
    assert json.loads(file.read_text()) == {"a": 1, "removed": 2, "added": 3}
    with pytest.raises(ValueError, match="added is 4, but was 3"):
        begin_or_continue(file, {"a": 1, "added": 4})


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"something": "else"}'])
def test_a_file_of_something_else(tmp_path, text):
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="holds no settings: name another output folder"):
        begin_or_continue(file, {"a": 1})
    assert file.read_text() == text
