"""The records of generated people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from querypose.synthetic.annotation import annotate
from querypose.synthetic.path_handler import check_picture, picture_path
from querypose.synthetic.scene import MAX_PEOPLE, Scene, sample_scene


@dataclass(frozen=True)
class SyntheticPeople:
    """A dataset of generated pictures; calling it gives Detectron2's list of records.

    Every call builds new records, so callers may change them (Detectron2's COCO conversion does).

    Attributes:
        num_images: pictures, at least 1.
        seed: datasets with different seeds share no picture; at least 0.
        image_size: width and height in pixels.
        max_people: most people in a picture, 1 to 8.

    Raises:
        ValueError: one of them is out of range.
    """

    num_images: int
    seed: int
    image_size: tuple[int, int] = (384, 384)
    max_people: int = MAX_PEOPLE

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {self.num_images}.")
        check_picture(self.seed, *self.image_size, self.max_people)

    def __len__(self) -> int:
        """Number of pictures."""
        return self.num_images

    def __call__(self) -> list[dict[str, Any]]:
        """All records; see :meth:`record`."""
        return [self.record(index) for index in range(self.num_images)]

    def path(self, index: int) -> str:
        """The path under which Detectron2's ``PathManager`` opens picture ``index``."""
        return picture_path(self.seed, index, *self.image_size, self.max_people)

    def scene(self, index: int) -> Scene:
        """The scene of picture ``index``.

        Raises:
            IndexError: there is no such picture.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(f"Picture {index} is outside 0..{self.num_images - 1}.")
        return sample_scene(self.seed, index, *self.image_size, self.max_people)

    def record(self, index: int) -> dict[str, Any]:
        """Picture ``index`` as Detectron2's dataset dictionary; annotations as :func:`annotate`."""
        width, height = self.image_size
        return {
            "file_name": self.path(index),
            "image_id": index,
            "height": height,
            "width": width,
            "annotations": annotate(self.scene(index)),
        }
