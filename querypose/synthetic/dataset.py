"""The records of generated people."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

from querypose.synthetic.annotation import annotate
from querypose.synthetic.path_handler import check_image, image_path
from querypose.synthetic.scene import MAX_PEOPLE, Scene, sample_scene

# Images; the annotations of one take some 10 KB.
_MAX_KEPT = 4096


@dataclass(frozen=True)
class SyntheticPeople:
    """A dataset of generated images; calling it gives Detectron2's list of records.

    Every call gives new records, so callers may change them (Detectron2's COCO conversion does).

    Attributes:
        num_images: images, at least 1.
        seed: datasets with different seeds share no image; at least 0.
        image_size: width and height in pixels.
        max_people: most people in an image, 1 to 8.

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
        check_image(self.seed, *self.image_size, self.max_people)

    def __len__(self) -> int:
        """Number of images."""
        return self.num_images

    def __call__(self) -> list[dict[str, Any]]:
        """All records; see :meth:`record`."""
        return [self.record(index) for index in range(self.num_images)]

    def path(self, index: int) -> str:
        """The path under which Detectron2's ``PathManager`` opens image ``index``."""
        return image_path(self.seed, index, *self.image_size, self.max_people)

    def scene(self, index: int) -> Scene:
        """The scene of image ``index``.

        Raises:
            IndexError: there is no such image.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(f"Image {index} is outside 0..{self.num_images - 1}.")
        return sample_scene(self.seed, index, *self.image_size, self.max_people)

    def record(self, index: int) -> dict[str, Any]:
        """Image ``index`` as Detectron2's dataset dictionary; annotations as :func:`annotate`."""
        width, height = self.image_size
        return {
            "file_name": self.path(index),
            "image_id": index,
            "height": height,
            "width": width,
            "annotations": copy.deepcopy(_annotations(self, index)),
        }


# Trainer and evaluator read a test set several times; drawing the figures takes 10 ms an image.
@functools.lru_cache(maxsize=_MAX_KEPT)
def _annotations(people: SyntheticPeople, index: int) -> list[dict[str, Any]]:
    return annotate(people.scene(index))
