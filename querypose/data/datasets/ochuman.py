"""OCHuman: heavily occluded people, COCO's keypoints (Zhang et al., CVPR 2019)."""

from __future__ import annotations

import os

from detectron2.data import DatasetCatalog

from querypose.data.datasets.coco import register_coco_keypoints
from querypose.skeleton import COCO_SKELETON

SPLITS = ("val", "test")


def register_ochuman(root: str) -> None:
    """Registers ``ochuman_val`` and ``ochuman_test``; the benchmark has no training split.

    Names that another project has registered are left alone.

    Args:
        root: the folder that contains ``ochuman/images`` and ``ochuman/annotations``, with the
            COCO-format files under the names that OCHuman's API gives them.
    """
    for split in SPLITS:
        name = f"ochuman_{split}"
        if name in DatasetCatalog:
            continue
        json_name = f"ochuman_coco_format_{split}_range_0.00_1.00.json"
        register_coco_keypoints(
            name,
            os.path.join(root, "ochuman", "annotations", json_name),
            os.path.join(root, "ochuman", "images"),
            COCO_SKELETON,
        )


register_ochuman(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
