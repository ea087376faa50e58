"""What Detectron2's evaluators cannot do."""

from querypose.evaluation.crowdpose import CrowdPoseEvaluator, evaluate_crowdpose

__all__ = ["CrowdPoseEvaluator", "evaluate_crowdpose"]
