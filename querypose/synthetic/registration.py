"""Generated people in Detectron2's catalogs."""

from __future__ import annotations

import functools

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from querypose.skeleton import COCO_SKELETON
from querypose.synthetic.dataset import SyntheticPeople
from querypose.synthetic.path_handler import SyntheticPathHandler
from querypose.synthetic.scene import MAX_PEOPLE


def register_synthetic_people(
    name: str,
    *,
    num_images: int,
    seed: int,
    image_size: tuple[int, int] = (384, 384),
    max_people: int = MAX_PEOPLE,
) -> None:
    """Register a dataset of generated people with Detectron2's catalogs.

    Args:
        name: what configs call it.
        num_images: images.
        seed: datasets with different seeds share no image.
        image_size: width and height in pixels.
        max_people: most people in an image, 1 to 8.

    Raises:
        ValueError: an argument is out of range, or the name is taken.
    """
    if name in DatasetCatalog.list():
        raise ValueError(f"A dataset named {name!r} is registered already; choose another name.")
    dataset = SyntheticPeople(num_images, seed, image_size, max_people)
    DatasetCatalog.register(name, dataset)
    MetadataCatalog.get(name).set(
        evaluator_type="coco", thing_classes=["person"], **COCO_SKELETON.metadata()
    )


@functools.cache
def register_builtin_synthetic_people() -> None:
    """Register the path handler and the ``synthetic_people_*`` datasets, once in a process."""
    PathManager.register_handler(SyntheticPathHandler())
    register_synthetic_people("synthetic_people_train", num_images=2000, seed=1)
    register_synthetic_people("synthetic_people_val", num_images=500, seed=2)
    register_synthetic_people(
        "synthetic_people_tiny", num_images=8, seed=3, image_size=(256, 256), max_people=2
    )
