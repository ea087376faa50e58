"""Chooses a dataset's evaluator by its metadata."""

from __future__ import annotations

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from querypose.evaluation.coco import KeypointEvaluator
from querypose.evaluation.crowdpose import CrowdPoseEvaluator

_EVALUATORS = {"coco": KeypointEvaluator, "crowdpose": CrowdPoseEvaluator}


def evaluator_class(dataset_name: str) -> type[KeypointEvaluator]:
    """The evaluator for a dataset's ``evaluator_type``; COCO's by default.

    Raises:
        ValueError: the type is unknown.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", "coco")
    if kind not in _EVALUATORS:
        raise ValueError(
            f"Dataset {dataset_name!r} asks for the evaluator {kind!r}; "
            f"known are {sorted(_EVALUATORS)}."
        )
    return _EVALUATORS[kind]


def build_evaluator(cfg: CfgNode, dataset_name: str) -> KeypointEvaluator:
    """Builds the evaluator of a dataset, with results in a folder of ``OUTPUT_DIR``.

    Without ``TEST.KEYPOINT_OKS_SIGMAS`` it takes the sigmas of the dataset's skeleton.

    Raises:
        FileNotFoundError: the label file does not exist.
        ValueError: the dataset asks for an unknown evaluator, its label file contradicts itself, or
            there is not one sigma per keypoint.
    """
    return evaluator_class(dataset_name)(
        dataset_name,
        tasks=("bbox", "keypoints"),
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )
