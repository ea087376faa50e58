"""CrowdPose: people in crowds, fourteen keypoints (Li et al., CVPR 2019)."""

from __future__ import annotations

import os

from detectron2.data import DatasetCatalog

from querypose.data.datasets.coco import register_coco_keypoints
from querypose.skeleton import CROWDPOSE_SKELETON

SPLITS = ("train", "val", "trainval", "test")


def register_crowdpose(root: str) -> None:
    """Registers ``crowdpose_train``, ``crowdpose_val``, ``crowdpose_trainval``, ``crowdpose_test``.

    The skeleton is declared here instead of read from the files: their ``skeleton`` field is
    COCO's and refers to more than fourteen keypoints. The files have no ``area`` either; the
    benchmark computes areas from the boxes.

    Names that another project has registered are left alone.

    Args:
        root: the folder that contains ``crowdpose/json`` and ``crowdpose/images``.
    """
    for split in SPLITS:
        name = f"crowdpose_{split}"
        if name in DatasetCatalog:
            continue
        register_coco_keypoints(
            name,
            os.path.join(root, "crowdpose", "json", f"crowdpose_{split}.json"),
            os.path.join(root, "crowdpose", "images"),
            CROWDPOSE_SKELETON,
            evaluator_type="crowdpose",
            thing_classes=["person"],
        )


register_crowdpose(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
