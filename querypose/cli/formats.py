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
# Further images in these are previews, depth maps or layers of the first one.
_WHOLE_IN_FIRST = frozenset({"MPO", "PSD"})
# Pillow needs Ghostscript for EPS, and IPTC files hold captions.
_EXCLUDED = frozenset({"EPS", "IPTC"})


class Kind(Enum):
    """What an input is."""

    IMAGE = "image"
    ANIMATION = "animation"
    VIDEO = "video"
    WEBCAM = "webcam"


def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the formats that the installed Pillow decodes."""
    Image.init()
    registered = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in registered if _decodes(name)) - VIDEO_SUFFIXES


def _decodes(name: str) -> bool:
    # Pillow's JPEG decoder also opens MPO files.
    name = "JPEG" if name == "MPO" else name
    if name not in Image.OPEN or name in _EXCLUDED:
        return False
    opener, _ = Image.OPEN[name]
    # Of some formats Pillow reads only the header.
    return not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))


def detect_kind(path: Path) -> tuple[Kind, str]:
    """Finds out what a file is, by its suffix if it is a video, else by its content.

    Returns:
        The kind, and a remark if only the first of several images will be used, else "". An
        unreadable file counts as an image: the error comes when it is read.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Kind.VIDEO, ""
    # A pipe can be read only once.
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
    return Kind.IMAGE, f"{path}: only the first of its {count} images is used."
