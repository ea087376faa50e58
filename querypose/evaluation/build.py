"""Chooses a dataset's evaluator by its metadata."""

from __future__ import annotations

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
