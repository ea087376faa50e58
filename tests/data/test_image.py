"""Image files of every kind, sound and broken."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps, features

from querypose.data.image import image_to_array, read_image

NAN, INF = float("nan"), float("inf")


def pixels(height=60, width=80):
    """Without edges, which lossy formats would smear."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([2 * rows, 2 * columns, rows + columns], axis=2)


UPRIGHT = np.rot90(pixels(), -1)


def exif(order, *entries):
    """An EXIF block of (tag, type, count, value) entries; long values follow them."""
    start = 8 + 2 + 12 * len(entries) + 4
    table, values = b"", b""
    for tag, kind, count, value in entries:
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            field = struct.pack(order + "L", start + len(values))
            values += value
        table += struct.pack(order + "HHL", tag, kind, count) + field
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", 8)
    return head + struct.pack(order + "H", len(entries)) + table + bytes(4) + values


def orientation(order, value=6):
    return 0x0112, 3, 1, struct.pack(order + "H", value)


def as_jpeg(block):
    image = io.BytesIO()
    Image.fromarray(pixels()).save(image, "JPEG", quality=95)
    content, segment = image.getvalue(), b"Exif\0\0" + block
    header = b"\xff\xe1" + struct.pack(">H", len(segment) + 2)
    return content[:2] + header + segment + content[2:]


def as_png(block):
    image = io.BytesIO()
    Image.fromarray(pixels()).save(image, "PNG")
    content, chunk = image.getvalue(), b"eXIf" + block
    place = content.index(b"IDAT") - 4
    size, check = struct.pack(">L", len(block)), struct.pack(">L", zlib.crc32(chunk))
    return content[:place] + size + chunk + check + content[place:]


def as_webp(block):
    image = io.BytesIO()
    Image.fromarray(pixels()).save(image, "WEBP", lossless=True, exif=b"Exif\0\0" + block)
    return image.getvalue()


def as_tiff(block):
    """In TIFF the EXIF entries stand beside those of the image."""
    order = {b"II": "<", b"MM": ">"}[block[:2]]
    image = io.BytesIO()
    height, width = pixels().shape[:2]
    rows = [(256, width), (257, height), (259, 1), (262, 2), (277, 3), (278, height)]
    entries = [(tag, 4, 1, struct.pack(order + "L", value)) for tag, value in rows]
    entries.append((258, 3, 3, struct.pack(order + "3H", 8, 8, 8)))
    entries.append((279, 4, 1, struct.pack(order + "L", pixels().size)))
    [count] = struct.unpack(order + "H", block[8:10])
    for index in range(count):
        entry = block[10 + 12 * index :][:12]
        tag, kind, number = struct.unpack(order + "HHL", entry[:8])
        size = number * {1: 1, 2: 1, 3: 2, 4: 4, 8: 2, 9: 4, 12: 8}.get(kind, 8)
        offset = struct.unpack(order + "L", entry[8:])[0]
        value = entry[8 : 8 + size] if size <= 4 else block[offset : offset + size]
        entries.append((tag, kind, number, value))
    place = len(exif(order, *entries, (273, 4, 1, bytes(4))))
    entries.append((273, 4, 1, struct.pack(order + "L", place)))
    image.write(exif(order, *sorted(entries)) + pixels().tobytes())
    return image.getvalue()


def as_avif(block):
    """AVIF stores the orientation beside EXIF, too; readers go by that."""
    room = (0x010E, 2, len(block), b"Q" * len(block))
    placeholder = exif("<", orientation("<"), room)
    image = io.BytesIO()
    Image.fromarray(pixels()).save(image, "AVIF", quality=100, exif=placeholder)
    content = image.getvalue()
    start = max(content.find(b"II*\0"), content.find(b"MM\0*"))
    end = content.index(b"Q" * len(block)) + len(block)
    return content[:start] + block.ljust(end - start, b"\0") + content[end:]


FORMATS = {"jpeg": as_jpeg, "png": as_png, "webp": as_webp, "tiff": as_tiff}
if features.check("avif"):
    FORMATS["avif"] = as_avif

BROKEN_NUMBERS = {
    "resolution -1/0": lambda order: (0x011A, 10, 1, struct.pack(order + "ll", -1, 0)),
    "resolution 1/0": lambda order: (0x011A, 5, 1, struct.pack(order + "LL", 1, 0)),
    "resolution NaN": lambda order: (0x011A, 12, 1, struct.pack(order + "d", NAN)),
    "resolution infinity": lambda order: (0x011A, 12, 1, struct.pack(order + "d", INF)),
    "resolution in words": lambda order: (0x011A, 2, 8, b"72 dpi.\0"),
    "unit -5": lambda order: (0x0128, 8, 1, struct.pack(order + "h", -5)),
    "unit in words": lambda order: (0x0128, 2, 5, b"inch\0"),
    "software -1/0 twice": lambda order: (0x0131, 10, 2, struct.pack(order + "4l", -1, 0, -1, 0)),
    "unknown tag of 2**63": lambda order: (0xABCD, 16, 1, struct.pack(order + "Q", 2**63)),
    "unknown type": lambda order: (0x010F, 99, 1, b"abcd"),
    "pointer to nowhere": lambda order: (0x8769, 4, 1, struct.pack(order + "L", 2**32 - 16)),
    "pointer to itself": lambda order: (0x8769, 4, 1, struct.pack(order + "L", 8)),
    "pointer of -1/0": lambda order: (0x8769, 10, 1, struct.pack(order + "ll", -1, 0)),
    "GPS at -4": lambda order: (0x8825, 9, 1, struct.pack(order + "l", -4)),
}


def read(folder: Path, content: bytes) -> np.ndarray:
    file = folder / "image"
    file.write_bytes(content)
    return read_image(str(file), "RGB")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("number", BROKEN_NUMBERS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_exif_number_leaves_the_image_upright(name, number, order, tmp_path):
    broken = BROKEN_NUMBERS[number](order)
    for entries in ([orientation(order), broken], [broken, orientation(order)]):
        image = read(tmp_path, FORMATS[name](exif(order, *entries)))
        assert image.shape == UPRIGHT.shape
        assert np.abs(image.astype(int) - UPRIGHT).mean() < 3


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "avif"])
@pytest.mark.parametrize(
    "entry",
    [(0x0112, 10, 1, bytes(8)), (0x0112, 2, 2, b"6\0"), (0x0112, 3, 1, b"\x63\x63"), None],
    ids=["0/0", "text", "unknown", "none"],
)
def test_an_image_without_a_readable_orientation_stays_as_it_is(name, entry, order, tmp_path):
    image = read(tmp_path, FORMATS[name](exif(order, *[entry] * (entry is not None))))
    assert np.abs(image.astype(int) - pixels()).mean() < 3


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    "block",
    [b"", b"no header at all", b"II*\0" + bytes(range(1, 200)), b"MM\0*\xff\xff\xff\xff"],
    ids=["empty", "words", "garbage", "far away"],
)
def test_exif_that_is_none_is_passed_over(name, block, tmp_path):
    assert read(tmp_path, FORMATS[name](block)).shape == (60, 80, 3)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("name", ["png", "tiff", "webp"])
def test_every_orientation_as_pillow_turns_it(name, value, tmp_path):
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = value
    file = tmp_path / "image"
    Image.fromarray(pixels()).save(file, name.upper(), exif=tags, lossless=True)
    with Image.open(file) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(str(file), "RGB"), expected)


def test_whatever_a_decoder_raises_is_one_sentence(failing_image, decoder_error, tmp_path):
    file = failing_image(tmp_path / "image.png", decoder_error)
    with pytest.raises(ValueError, match=r"image\.png cannot be read: \S.*[^.]\.$") as error:
        read_image(str(file), "RGB")
    assert "\n" not in str(error.value) and error.value.__cause__ is decoder_error


def cut(content):
    return content[: 2 * len(content) // 3]


def overwritten(content):
    third = len(content) // 3
    return content[:third] + np.random.default_rng(0).bytes(third) + content[2 * third :]


@pytest.mark.parametrize("broken", [cut, overwritten])
@pytest.mark.parametrize(
    "suffix", [".avif", ".bmp", ".gif", ".jp2", ".jpg", ".png", ".tga", ".tif"]
)
def test_broken_files_are_read_or_named(suffix, broken, tmp_path):
    file = tmp_path / f"broken{suffix}"
    try:
        noise = np.random.default_rng(1).integers(0, 256, (64, 48, 3), np.uint8)
        Image.fromarray(noise).save(file)
    except (KeyError, OSError, ValueError):
        pytest.skip(f"this Pillow writes no {suffix}")
    file.write_bytes(broken(file.read_bytes()))
    try:
        assert read_image(str(file), "RGB").shape[2] == 3
    except ValueError as error:
        assert f"broken{suffix} cannot be read: " in str(error)


def test_a_pillow_image_that_is_not_decoded_yet_may_be_broken(tmp_path):
    file = tmp_path / "cut.jpg"
    file.write_bytes(cut(as_jpeg(exif("<"))))
    with (
        Image.open(file) as image,
        pytest.raises(ValueError, match=rf"^The Pillow image {file} cannot be read: .*trunc.*\.$"),
    ):
        image_to_array(image, "RGB", "RGB")
    with (
        Image.open(io.BytesIO(file.read_bytes())) as image,
        pytest.raises(ValueError, match=r"^The Pillow image cannot be read: "),
    ):
        image_to_array(image, "RGB", "RGB")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".webp"])
def test_of_several_images_the_first_is_read(suffix, tmp_path):
    frames = [Image.new("RGB", (30, 20), (value, value, value)) for value in (10, 200)]
    file = tmp_path / f"several{suffix}"
    frames[0].save(file, save_all=True, append_images=frames[1:])
    assert abs(int(read_image(str(file), "RGB").mean()) - 10) < 3
