from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image, ImageFile, features

from querypose.cli.formats import VIDEO_SUFFIXES, Kind, detect_kind, image_suffixes
from querypose.cli.inputs import find_inputs
from querypose.data.image import read_image


def save_somehow(path: Path) -> bool:
    """Writes a small image in the format of the path, if Pillow can write it."""
    for mode in ("RGB", "P", "1"):
        try:
            Image.new("RGB", (64, 64), "red").convert(mode).save(path)
            return True
        except (KeyError, OSError, ValueError):
            path.unlink(missing_ok=True)
    return False


def test_all_images_of_a_folder_that_pillow_decodes_are_inputs(tmp_path):
    written = [suffix for suffix in image_suffixes() if save_somehow(tmp_path / f"image{suffix}")]
    assert len(written) >= 20
    found = find_inputs([str(tmp_path)], ())
    assert {Path(item.source).suffix for item in found.inputs} == set(written)
    assert all(item.kind is Kind.IMAGE for item in found.inputs) and found.remarks == []
    for item in found.inputs:
        assert read_image(item.source, "RGB").shape[2] == 3


@pytest.mark.parametrize(
    "suffix",
    [
        *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png"),
        *(".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
        *[".avif"] * features.check("avif"),
        *[".jp2", ".j2k", ".jpx"] * features.check("jpg_2000"),
    ],
)
def test_common_images_are_images(suffix):
    assert suffix in image_suffixes()


@pytest.mark.parametrize(
    "suffix", [".eps", ".ps", ".pdf", ".grib", ".h5", ".hdf", ".wmf", ".mpg", ".mpeg", ".txt", ""]
)
def test_a_format_that_pillow_cannot_decode_by_itself_is_no_image(suffix):
    assert suffix not in image_suffixes()


def test_decoders_of_plugins_count():
    class Plugin(ImageFile.ImageFile):
        format = "PLUGIN"

    Image.register_open("PLUGIN", Plugin)
    Image.register_extension("PLUGIN", ".plugin")
    try:
        assert ".plugin" in image_suffixes()
    finally:
        Image.ID.remove("PLUGIN")
        del Image.OPEN["PLUGIN"], Image.EXTENSION[".plugin"]
    assert ".plugin" not in image_suffixes()


def test_videos_go_by_their_suffix(tmp_path):
    assert not VIDEO_SUFFIXES & image_suffixes()
    for suffix in (".mp4", ".MOV", ".mkv", ".mpg", ".m2ts", ".webm"):
        assert detect_kind(tmp_path / f"film{suffix}") == (Kind.VIDEO, "")


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert detect_kind(tmp_path / "pipe") == (Kind.IMAGE, "")


@pytest.fixture
def folder(tmp_path):
    """A folder with an image, notes, a hidden file and a further folder."""
    place = tmp_path / "photos"
    (place / "further").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(place / "a.png")
    for name in ("notes.txt", ".hidden.txt", "further/deep.txt"):
        (place / name).write_text("no image")
    return place


def test_ignored_files_of_a_folder_are_named_once(folder, run_demo, capsys):
    status, frames = run_demo(folder, folder, folder / "a.png")
    assert status == 0 and len(frames) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "Ignored" in line]
    assert lines == [
        f"querypose-demo: Ignored in {folder}, as neither images nor videos: notes.txt."
    ]


def test_the_first_of_many_ignored_files_are_named(folder):
    for index in range(10):
        (folder / f"{index}.csv").write_text("")
    [remark] = find_inputs([str(folder)], ()).remarks
    assert remark.endswith("images nor videos: 0.csv, 1.csv, 2.csv and 8 more.")


def test_files_that_are_named_or_match_are_not_ignored(folder):
    for argument in (folder / "notes.txt", folder / "*.txt"):
        found = find_inputs([str(argument)], ())
        assert [Path(item.source).name for item in found.inputs] == ["notes.txt"]
        assert found.remarks == []


def test_a_folder_without_images_is_a_problem(folder, capsys):
    (folder / "a.png").unlink()
    found = find_inputs(["-"], [f"{folder}\n", f"{folder}\n", "\n", "-\n"])
    assert found.inputs == [] and len(found.remarks) == 1
    assert found.problems[0] == f"The folder {folder} holds no images or videos."
