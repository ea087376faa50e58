"""Reading and writing checkpoints."""

from querypose.checkpoint.checkpointer import QueryPoseCheckpointer
from querypose.checkpoint.on_load import convert_on_load
from querypose.checkpoint.released import convert_released_state_dict, is_released_state_dict

__all__ = [
    "QueryPoseCheckpointer",
    "convert_on_load",
    "convert_released_state_dict",
    "is_released_state_dict",
]
