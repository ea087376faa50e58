"""Reads and converts images of any kind to 8-bit arrays with three channels."""

from __future__ import annotations

import re
from io import BytesIO
from os import PathLike
from typing import IO

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, UnidentifiedImageError

ImageLike = np.ndarray | Image.Image | str | PathLike[str]

CHANNEL_ORDERS = ("RGB", "BGR")
# Pillow modes with more than 8 bits, which a plain conversion would clip at 255.
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_UNBOUNDED_MODES = ("I", "F")
_NETWORK_ADDRESSES = ("http://", "https://", "ftp://")
# The transposition for each value of EXIF's orientation tag.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The header of EXIF and the number of its tags.
_EXIF_START = re.compile(rb"(II\*\0.{4}|MM\0\*.{4})..", re.DOTALL)


def read_image(file_name: str, image_format: str) -> np.ndarray:
    """Reads an image file as color, upright by its EXIF orientation.

    The first frame of an animation and the first page of a document are read. Broken EXIF data are
    ignored, as far as they cannot be read.

    Args:
        file_name: any path that Detectron2's ``PathManager`` opens.
        image_format: "RGB" or "BGR".

    Returns:
        (H, W, 3) uint8 in ``image_format`` order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, is truncated or is broken in another way.
    """
    try:
        with PathManager.open(file_name, "rb") as file:
            image = decode_file(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image {file_name}.") from error
    # Decoders raise many types for broken files, struct.error and KeyError among them.
    except Exception as error:
        reason = why_unreadable(error)
        raise ValueError(f"The image {file_name} cannot be read: {reason}.") from error
    return _reordered(image, "RGB", image_format)


def decode(image: Image.Image) -> np.ndarray:
    """Decodes the current frame of an open image file, upright by its EXIF orientation.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        Exception: of any type, if the file is broken.
    """
    if image.format == "TIFF":
        # Pillow would follow these pointers after the last pixel, even if they are broken.
        exif = image.getexif()
        for pointer in set(ExifTags.IFD).intersection(exif):
            del exif[pointer]
    image.load()
    return pillow_to_array(_upright(image))


def decode_file(file: IO[bytes]) -> np.ndarray:
    """Decodes the first frame of an image file, upright by its EXIF orientation.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        Exception: of any type, if the file is broken.
    """
    try:
        with Image.open(file) as image:
            return decode(image)
    except Exception:
        content = _without_exif(file)
        if content is None:
            raise
    with Image.open(content) as image:
        return decode(image)


def why_unreadable(error: Exception) -> str:
    """The reason in a decoder's error, to end a sentence; without the period."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty or in no known format"
    text = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
    return text if " " in text else f"{type(error).__name__} {text}".rstrip()


def _without_exif(file: IO[bytes]) -> IO[bytes] | None:
    """A copy of an AVIF file with empty EXIF; None for other files.

    When Pillow opens an AVIF file, it writes the container's rotation into the EXIF data. That
    fails if any other tag is broken.
    """
    if not file.seekable():
        return None
    file.seek(0)
    content = file.read()
    emptied = _EXIF_START.sub(rb"\1\0\0", content)
    is_avif = content[4:8] == b"ftyp"
    return BytesIO(emptied) if is_avif and emptied != content else None


def _upright(image: Image.Image) -> Image.Image:
    """Transposes an image by its EXIF orientation; no other tag is read."""
    try:
        transposition = _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return image
    return image if transposition is None else image.transpose(transposition)


def image_to_array(image: ImageLike, channel_order: str, image_format: str) -> np.ndarray:
    """Converts an image to (H, W, 3) uint8 in ``image_format`` order.

    Args:
        image: a path, a Pillow image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        channel_order: of arrays, "RGB" or "BGR".
        image_format: of the result, "RGB" or "BGR".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the image has another type, is a URL or cannot be read.
    """
    if isinstance(image, (str, PathLike)):
        # PathManager would download the image and keep a copy.
        if str(image).startswith(_NETWORK_ADDRESSES):
            raise ValueError(
                f"Images come from files, not from the network: download {image} first."
            )
        return read_image(str(image), image_format)
    if isinstance(image, Image.Image):
        _load(image)
        return _reordered(pillow_to_array(image), "RGB", image_format)
    if isinstance(image, np.ndarray):
        return _reordered(_numpy_to_array(image), channel_order, image_format)
    raise ValueError(f"An image is a path, a Pillow image or an array, got {type(image).__name__}.")


def _load(image: Image.Image) -> None:
    """Decodes an image that Pillow has opened; until then a broken file may look sound."""
    try:
        image.load()
    except Exception as error:
        named = f"The Pillow image {getattr(image, 'filename', '')}".rstrip()
        raise ValueError(f"{named} cannot be read: {why_unreadable(error)}.") from error


def pillow_to_array(image: Image.Image) -> np.ndarray:
    """Converts a Pillow image to (H, W, 3) uint8 RGB; of 16 bits it keeps the upper 8.

    Raises:
        ValueError: the values of the image's mode have no known range.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return _numpy_to_array(gray)
    if image.mode in _UNBOUNDED_MODES:
        raise ValueError(
            f"A Pillow image of mode {image.mode!r} has no known range; "
            "scale it to 0..255 and convert it to mode 'L'"
        )
    return np.asarray(image.convert("RGB"))


def _numpy_to_array(image: np.ndarray) -> np.ndarray:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(
            "An image array has the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"got {image.shape}."
        )
    if image.dtype != np.uint8:
        raise ValueError(f"An image array is uint8, 0 to 255, got {image.dtype}.")
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image[:, :, :3]


def _reordered(image: np.ndarray, given: str, wanted: str) -> np.ndarray:
    return image if given == wanted else image[:, :, ::-1]
