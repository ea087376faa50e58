"""Reading and writing checkpoints; importing this package registers the file formats."""

from querypose.checkpoint import backbones, efficientnet, pinet_released, querypose_released
from querypose.checkpoint.checkpointer import QueryPoseCheckpointer
from querypose.checkpoint.description import ModelDescription, read_description
from querypose.checkpoint.formats import CheckpointFormat, convert_on_load, register_format
from querypose.checkpoint.querypose_released import (
    convert_released_state_dict,
    is_released_state_dict,
)

__all__ = [
    "CheckpointFormat",
    "ModelDescription",
    "QueryPoseCheckpointer",
    "backbones",
    "convert_on_load",
    "convert_released_state_dict",
    "efficientnet",
    "is_released_state_dict",
    "pinet_released",
    "querypose_released",
    "read_description",
    "register_format",
]
