"""Keypoint evaluators for COCO's and CrowdPose's metrics."""

from querypose.evaluation.build import build_evaluator
from querypose.evaluation.coco import KeypointEvaluator, evaluate_coco
from querypose.evaluation.crowdpose import CrowdPoseEvaluator, evaluate_crowdpose

__all__ = [
    "CrowdPoseEvaluator",
    "KeypointEvaluator",
    "build_evaluator",
    "evaluate_coco",
    "evaluate_crowdpose",
]
