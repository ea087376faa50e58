"""Images by path: ``synthetic://people/{seed}/{width}x{height}/{max_people}/{index}.png``."""

from __future__ import annotations

import io
import re
from typing import Any

import cv2
from detectron2.utils.file_io import PathHandler

from querypose.synthetic.painting import render
from querypose.synthetic.scene import MAX_PEOPLE, Scene, sample_scene

MIN_SIDE, MAX_SIDE = 96, 4096
PREFIX = "synthetic://"
_PATH = re.compile(r"people/(\d+)/(\d+)x(\d+)/(\d+)/(\d+)\.png")


def image_path(seed: int, index: int, width: int, height: int, max_people: int) -> str:
    """The path under which :class:`SyntheticPathHandler` renders an image."""
    return f"{PREFIX}people/{seed}/{width}x{height}/{max_people}/{index}.png"


def check_image(seed: int, width: int, height: int, max_people: int) -> None:
    """Check what an image is made from.

    Raises:
        ValueError: an argument is out of range.
    """
    if seed < 0:
        raise ValueError(f"The seed of synthetic people must be at least 0, got {seed}.")
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ValueError(
            f"Images of synthetic people are {MIN_SIDE} to {MAX_SIDE} pixels wide and high, "
            f"got {width}x{height}."
        )
    if not 1 <= max_people <= MAX_PEOPLE:
        raise ValueError(f"max_people must be 1 to {MAX_PEOPLE}, got {max_people}.")


def _png_options() -> tuple[int, ...]:
    """Neither compression nor filters: either would cost more time than rendering."""
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        unfiltered = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
        return (cv2.IMWRITE_PNG_COMPRESSION, 0, *unfiltered)
    return (cv2.IMWRITE_PNG_COMPRESSION, 0)  # OpenCV before 4.12


class SyntheticPathHandler(PathHandler):
    """Renders an image of synthetic people when its path is opened for reading."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _open(self, path: str, mode: str = "rb", buffering: int = -1, **kwargs: Any) -> io.BytesIO:
        self._check_kwargs(kwargs)
        if mode != "rb":
            raise ValueError(f"{path} is rendered when read: open it with mode 'rb', not {mode!r}.")
        image = render(_parse_path(path))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image)
        encoded = cv2.imencode(".png", bgr, _png_options())[1]
        return io.BytesIO(encoded.tobytes())

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        return _PATH.fullmatch(path.removeprefix(PREFIX)) is not None

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path, **kwargs)


def _parse_path(path: str) -> Scene:
    match = _PATH.fullmatch(path.removeprefix(PREFIX))
    if match is None:
        raise ValueError(
            f"{path!r} names no synthetic image; expected "
            f"{PREFIX}people/SEED/WIDTHxHEIGHT/MAX_PEOPLE/INDEX.png."
        )
    seed, width, height, max_people, index = map(int, match.groups())
    check_image(seed, width, height, max_people)
    return sample_scene(seed, index, width, height, max_people)
