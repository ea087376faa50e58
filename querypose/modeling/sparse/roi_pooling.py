"""RoI pooling from the feature maps that a config names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ROIAlign, ShapeSpec
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn

from querypose.modeling.sparse.roi_align import RowROIAlign


class PyramidPooler(ROIPooler):
    """Detectron2's pooler for boxes in one tensor instead of one list per image."""

    def forward(self, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pools every box from the map that suits its size (FPN, equation 1).

        Args:
            maps: from fine to coarse, (B, C, H / stride, W / stride).
            rois: (R, 5): image index, then xyxy in pixels of the network's input.

        Returns:
            (R, C, h, w).
        """
        if len(self.level_poolers) == 1:
            return self.level_poolers[0](maps[0], rois)
        levels = assign_boxes_to_levels(
            [Boxes(rois[:, 1:])],
            self.min_level,
            self.max_level,
            self.canonical_box_size,
            self.canonical_level,
        )
        pooled = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *self.output_size)
        for level, (pooler, level_map) in enumerate(zip(self.level_poolers, maps, strict=True)):
            rows = (levels == level).nonzero()[:, 0]
            pooled.index_put_((rows,), pooler(level_map, rois[rows]))
        return pooled


def to_rois(boxes: Tensor) -> Tensor:
    """Writes the number of its image before every one of (B, N, 4) boxes, (B * N, 5)."""
    images = torch.arange(boxes.shape[0], dtype=boxes.dtype, device=boxes.device)
    return torch.cat([images[:, None, None].expand(-1, boxes.shape[1], 1), boxes], 2).flatten(0, 1)


def pool(
    pooler: PyramidPooler, features: dict[str, Tensor], names: Sequence[str], rois: Tensor
) -> Tensor:
    """Pools boxes from named feature maps.

    Args:
        pooler: from :func:`build_pooler`.
        features: maps by name, (B, C, H / stride, W / stride).
        names: the maps that the pooler reads.
        rois: (R, 5): image index, then xyxy in pixels of the network's input.

    Returns:
        (R, C, h, w).
    """
    # torchvision's RoIAlign reads outside the map where boxes of a diverged model are NaN or
    # infinite. The matcher and the detections report these boxes.
    return pooler([features[name] for name in names], rois.nan_to_num(0.0, 0.0, 0.0))


def build_pooler(
    node: CfgNode, in_features: Sequence[str], input_shape: dict[str, ShapeSpec]
) -> PyramidPooler:
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
) -> PyramidPooler:
    """A pooler with this package's faster RoIAlign on processors.

    Args:
        output_size: side of the pooled square.
        scales: of each feature map, relative to the network's input.
        sampling_ratio: samples along each side of a pooled cell.
        pooler_type: as in Detectron2's ``ROIPooler``.
    """
    pooler = PyramidPooler(
        output_size=output_size,
        scales=scales,
        sampling_ratio=sampling_ratio,
        pooler_type=pooler_type,
    )
    if isinstance(pooler.level_poolers[0], ROIAlign):
        pooler.level_poolers = nn.ModuleList(map(RowROIAlign.like, pooler.level_poolers))
    return pooler
