"""Keypoint evaluators for COCO's and CrowdPose's metrics."""

from querypose.evaluation.coco import KeypointEvaluator
from querypose.evaluation.crowdpose import CrowdPoseEvaluator, evaluate_crowdpose

__all__ = ["CrowdPoseEvaluator", "KeypointEvaluator", "evaluate_crowdpose"]
