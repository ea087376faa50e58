"""Writes generated images and clips to files, as inputs of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog
from PIL import Image

from querypose.cli.video import VideoWriter
from querypose.data.image import read_image
from querypose.synthetic.walk import FRAME_RATE, walking_people


def write_images(dataset: str, indices: Sequence[int], folder: Path) -> list[str]:
    """Writes images of a registered dataset to a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    records = DatasetCatalog.get(dataset)
    paths = [folder / f"generated_{index:03}.png" for index in indices]
    for index, path in zip(indices, paths, strict=True):
        Image.fromarray(read_image(records[index]["file_name"], "RGB")).save(path)
    return [str(path) for path in paths]


def write_clip(path: Path, num_frames: int) -> str:
    """Writes a clip of walking people; returns its path."""
    with VideoWriter(path, FRAME_RATE) as writer:
        for frame in walking_people(num_frames):
            writer.write(frame)
    return str(path)
