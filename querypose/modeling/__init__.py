"""Models; importing this package registers them with Detectron2."""

from querypose.modeling import backbone, meta_arch
from querypose.modeling.meta_arch.querypose import QueryPose

__all__ = ["QueryPose", "backbone", "meta_arch"]
