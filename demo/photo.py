"""A real photo that needs no download: the astronaut Eileen Collins, by NASA, public domain."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from skimage.data import astronaut


def write_photo(folder: Path) -> str:
    """Writes the photo to a folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "astronaut.jpg"
    Image.fromarray(astronaut()).save(path, quality=95)
    return str(path)
