"""Models; importing this package registers them with Detectron2."""

from querypose.modeling import backbone
from querypose.modeling.querypose import QueryPose

__all__ = ["QueryPose", "backbone"]
