"""Models; importing this package registers them with Detectron2."""

from querypose.modeling import backbone
from querypose.modeling.meta_arch import PINet, QualityPose, QueryPose

__all__ = ["PINet", "QualityPose", "QueryPose", "backbone"]
