"""Which files hold images, animations and videos."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from PIL import Image, ImageFile

VIDEO_SUFFIXES = frozenset(
    [
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v"),
        *(".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts"),
        *(".vob", ".webm", ".wmv", ".y4m"),
    ]
)

_ANIMATED_FORMATS = frozenset({"AVIF", "FLI", "GIF", "PNG", "WEBP"})
# What follows the first image of these are its previews, depth maps or layers.
_WHOLE_IN_FIRST = frozenset({"MPO", "PSD"})
# Pillow runs Ghostscript for the one, and the other holds an image's captions.
_NO_IMAGES = frozenset({"EPS", "IPTC"})


class Kind(Enum):
    """What an input gives: one image, or frames."""

    IMAGE = "image"
    ANIMATION = "animation"
    VIDEO = "video"
    WEBCAM = "webcam"


def image_suffixes() -> frozenset[str]:
    """Endings, in lower case, of the formats that the installed Pillow decodes."""
    Image.init()
    registered = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in registered if _decodes(name)) - VIDEO_SUFFIXES


def _decodes(name: str) -> bool:
    # Pillow's JPEG decoder opens files of several JPEG images, too.
    name = "JPEG" if name == "MPO" else name
    if name not in Image.OPEN or name in _NO_IMAGES:
        return False
    opener, _ = Image.OPEN[name]
    # Of some formats Pillow knows the header alone.
    return not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))


def look_inside(path: Path) -> tuple[Kind, str]:
    """Finds out what a file gives.

    Returns:
        The kind, and a sentence if only the file's first image will be taken, else "". A file
        that cannot be read is an image; reading it tells why.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Kind.VIDEO, ""
    # A pipe can be read once.
    if not path.is_file():
        return Kind.IMAGE, ""
    try:
        with Image.open(path) as image:
            if not getattr(image, "is_animated", False) or image.format in _WHOLE_IN_FIRST:
                return Kind.IMAGE, ""
            if image.format in _ANIMATED_FORMATS:
                return Kind.ANIMATION, ""
            count = image.n_frames
    except Exception:
        return Kind.IMAGE, ""
    return Kind.IMAGE, f"{path}: only the first of its {count} images is taken."
