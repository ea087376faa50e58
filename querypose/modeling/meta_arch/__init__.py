"""One method per module; importing this package registers them with Detectron2."""

from querypose.modeling.meta_arch.pinet import PINet
from querypose.modeling.meta_arch.quality_pose import QualityPose
from querypose.modeling.meta_arch.querypose import QueryPose

__all__ = ["PINet", "QualityPose", "QueryPose"]
