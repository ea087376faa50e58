"""RoIAlign for CPUs, as weighted sums of rows."""

from __future__ import annotations

import torch
from detectron2.layers import ROIAlign
from torch import Tensor
from torch.nn import functional as F


class RowROIAlign(ROIAlign):
    """Detectron2's RoIAlign, several times faster on a CPU and equal up to rounding.

    Every bin is a weighted sum of cells of the feature map. With channels last each cell is one row
    of memory, and ``embedding_bag`` sums rows with vector instructions in both passes, whereas
    torchvision's operator gathers single numbers and runs its backward pass on one thread.

    On a GPU, with an adaptive number of samples, without half-pixel alignment, or in an export to
    ONNX, which has this operator, torchvision's runs.
    """

    @classmethod
    def like(cls, other: ROIAlign) -> RowROIAlign:
        """A module that pools as another one does."""
        return cls(other.output_size, other.spatial_scale, other.sampling_ratio, other.aligned)

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pools boxes.

        Args:
            input: feature maps, (B, C, H, W); channels last in memory saves a copy.
            rois: (R, 5): image index, then xyxy in pixels of the network's input.

        Returns:
            (R, C, h, w), channels first in memory.
        """
        is_suited = input.device.type == "cpu" and self.sampling_ratio > 0 and self.aligned
        if not is_suited or torch.onnx.is_in_onnx_export():
            return super().forward(input, rois)
        channels, height, width = input.shape[1:]
        size = self.output_size
        out_height, out_width = (size, size) if isinstance(size, int) else size
        # Boxes get no gradient, as in torchvision's operator.
        boxes = rois[:, 1:].detach() * self.spatial_scale - 0.5
        x_min, y_min, x_max, y_max = boxes.unbind(1)
        rows, row_weights = self._samples(y_min, y_max, out_height, height)
        columns, column_weights = self._samples(x_min, x_max, out_width, width)
        rows = rows + rois[:, 0].long()[:, None, None] * height
        # Cells of every bin and their weights, (R, h, w, 2 samples, 2 samples).
        cells = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        pooled = F.embedding_bag(
            cells.flatten(0, 2).flatten(1),
            input.permute(0, 2, 3, 1).reshape(-1, channels),
            per_sample_weights=weights.flatten(0, 2).flatten(1).to(input.dtype),
            mode="sum",
        )
        pooled = pooled.view(len(rois), out_height, out_width, channels)
        return pooled.permute(0, 3, 1, 2).contiguous()

    def _samples(
        self, start: Tensor, end: Tensor, num_bins: int, length: int
    ) -> tuple[Tensor, Tensor]:
        """Cells and weights of the linear interpolation along one axis.

        Args:
            start: of the boxes, (R,), in cells of the feature map.
            end: of the boxes, (R,).
            num_bins: along the axis.
            length: cells along the axis.

        Returns:
            Indices and weights, (R, num_bins, 2 samples): the two neighbors of each sample.
        """
        bins = torch.arange(num_bins, device=start.device)[:, None]
        samples = torch.arange(self.sampling_ratio, device=start.device) + 0.5
        bin_size = ((end - start) / num_bins)[:, None, None]
        position = start[:, None, None] + bins * bin_size + samples * bin_size / self.sampling_ratio
        inside = (position >= -1) & (position <= length)
        position = position.clamp(0, length - 1)
        low = position.floor()
        high_weight = position - low
        neighbors = torch.stack([low, (low + 1).clamp(max=length - 1)], dim=-1).long()
        weights = torch.stack([1 - high_weight, high_weight], dim=-1)
        weights = weights * inside[..., None] / self.sampling_ratio
        return neighbors.flatten(2), weights.flatten(2)
