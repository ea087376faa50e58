"""RoI pooling from the feature maps that a config names."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from querypose.modeling.sparse.roi_align import RowROIAlign


def pool(
    pooler: ROIPooler, features: dict[str, Tensor], names: Sequence[str], boxes: Sequence[Tensor]
) -> Tensor:
    """Pools the boxes of every image from named feature maps.

    Args:
        pooler: from :func:`build_pooler`.
        features: maps by name, (B, C, H / stride, W / stride).
        names: the maps that the pooler reads.
        boxes: per image, (R_i, 4) xyxy in pixels of the network's input.

    Returns:
        (R, C, h, w), R = sum of R_i, in the order of the images.
    """
    # torchvision's RoIAlign reads outside the map where boxes of a diverged model are NaN or
    # infinite. The matcher and the detections report these boxes.
    finite = [Boxes(image.nan_to_num(0.0, 0.0, 0.0)) for image in boxes]
    return pooler([features[name] for name in names], finite)


def build_pooler(
    node: CfgNode, in_features: Sequence[str], input_shape: dict[str, ShapeSpec]
) -> ROIPooler:
    """Builds the pooler that a ``MODEL.ROI_*_HEAD`` node describes.

    Args:
        node: with ``POOLER_RESOLUTION``, ``POOLER_SAMPLING_RATIO`` and ``POOLER_TYPE``.
        in_features: names of the feature maps that it reads.
        input_shape: strides of the feature maps by name.
    """
    return build_roi_pooler(
        output_size=node.POOLER_RESOLUTION,
        scales=[1.0 / input_shape[name].stride for name in in_features],
        sampling_ratio=node.POOLER_SAMPLING_RATIO,
        pooler_type=node.POOLER_TYPE,
    )


def build_roi_pooler(
    *, output_size: int, scales: Sequence[float], sampling_ratio: int, pooler_type: str
) -> ROIPooler:
    """Detectron2's ``ROIPooler`` with this package's faster RoIAlign on processors.

    Args:
        output_size: side of the pooled square.
        scales: of each feature map, relative to the network's input.
        sampling_ratio: samples along each side of a pooled cell.
        pooler_type: as in Detectron2's ``ROIPooler``.
    """
    pooler = ROIPooler(
        output_size=output_size,
        scales=scales,
        sampling_ratio=sampling_ratio,
        pooler_type=pooler_type,
    )
    if isinstance(pooler.level_poolers[0], ROIAlign):
        pooler.level_poolers = nn.ModuleList(map(RowROIAlign.like, pooler.level_poolers))
    return pooler
