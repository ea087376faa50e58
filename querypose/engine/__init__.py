"""Training and evaluation."""

from querypose.engine.bad_batch import load_bad_batch
from querypose.engine.launch import launch
from querypose.engine.trainer import QueryPoseTrainer

__all__ = ["QueryPoseTrainer", "launch", "load_bad_batch"]
