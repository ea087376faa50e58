"""An unreadable file does not stop the others of its folder."""

from __future__ import annotations

from PIL import Image


def test_whatever_a_decoder_raises(failing_image, decoder_errors, run_demo, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "z.png"):
        Image.new("RGB", (40, 30)).save(folder / name)
    damaged = [
        failing_image(folder / f"damaged{index}.png", error)
        for index, error in enumerate(decoder_errors)
    ]
    status, frames = run_demo(folder, "--output", tmp_path / "out")
    assert status == 1
    assert [frame["source"] for frame in frames] == [str(folder / "a.png"), str(folder / "z.png")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "z.png"]
    errors = capsys.readouterr().err
    assert all(f"Skipped: The image {file} cannot be read: " in errors for file in damaged)
    assert "Traceback" not in errors


def test_broken_exif(run_demo, tmp_path):
    table = b"\2\0" + b"\x12\1\3\0\1\0\0\0\6\0\0\0" + b"\x1a\1\x0a\0\1\0\0\0\x26\0\0\0" + bytes(4)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + table + b"\xff\xff\xff\xff\0\0\0\0"
    for name in ("a.jpg", "b.webp", "c.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name, exif=exif)
    status, frames = run_demo(tmp_path, "--output", tmp_path / "out")
    assert status == 0 and len(frames) == 3
    for path in (tmp_path / "out").iterdir():
        assert Image.open(path).size == (30, 40)
