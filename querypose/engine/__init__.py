"""Training and evaluation."""

from querypose.engine.trainer import QueryPoseTrainer

__all__ = ["QueryPoseTrainer"]
