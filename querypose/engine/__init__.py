"""Training and evaluation."""

from querypose.engine.bad_batch import load_bad_batch
from querypose.engine.launch import launch
from querypose.engine.set_up import set_up
from querypose.engine.trainer import QueryPoseTrainer

__all__ = ["QueryPoseTrainer", "launch", "load_bad_batch", "set_up"]
