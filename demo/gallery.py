"""Draws the images of the README: results of the demo on a photo and on generated people.

The packaged model was not trained on them: a clip, and some images of the validation dataset.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from generated import write_clip, write_images
from photo import write_photo
from PIL import Image

from querypose.cli.demo import main as draw
from querypose.cli.video import VideoReader
from querypose.visualization import pose_sheet

_DATASET = "synthetic_people_val"
_GALLERY = Path(__file__).resolve().parent.parent / "docs" / "gallery"
_IMAGE_INDEX = 45
_SHEET_INDICES = (1, 2, 3, 4, 5, 6, 7, 8)
_ATTENTION_INDEX = 8
_NUM_FRAMES = 32
_SHOWN_FRAMES = (9, 14, 19, 24)
_WIDTH, _QUALITY = 960, 85


def main() -> None:
    """Writes the images of ``docs/gallery``."""
    _GALLERY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw([write_photo(folder), "--output", str(_GALLERY)])
        _draw_image(folder)
        _draw_sheet(folder)
        _draw_attention(folder)
        _draw_video(folder)


def _draw_image(folder: Path) -> None:
    images = write_images(_DATASET, [_IMAGE_INDEX], folder)
    draw([*images, "--output", str(_GALLERY / "image.jpg")])


def _draw_sheet(folder: Path) -> None:
    images = write_images(_DATASET, _SHEET_INDICES, folder)
    draw([*images, "--sheet", str(_GALLERY / "sheet.jpg")])


def _draw_attention(folder: Path) -> None:
    [image] = write_images(_DATASET, [_ATTENTION_INDEX], folder)
    drawn = folder / "drawn"
    draw(
        [
            *(image, "--output", f"{drawn}/"),
            *("--draw", "skeleton,attention", "--attention-person", "1"),
        ]
    )
    attention = Image.open(drawn / f"{Path(image).stem}.attention.png")
    attention.save(_GALLERY / "attention.jpg", quality=_QUALITY)


def _draw_video(folder: Path) -> None:
    drawn = folder / "drawn.mp4"
    draw([write_clip(folder / "clip.mp4", _NUM_FRAMES), "--output", str(drawn)])
    frames = VideoReader(str(drawn))
    shown = [frame.image for frame in frames if frame.index in _SHOWN_FRAMES]
    strip = pose_sheet(shown, width=_WIDTH)
    Image.fromarray(strip).save(_GALLERY / "video.jpg", quality=_QUALITY)


if __name__ == "__main__":
    sys.exit(main())
