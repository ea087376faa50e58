"""The queries of a batch between the box stages and the keypoint stages."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class StageState(NamedTuple):
    """The N queries of B images after one stage.

    Attributes:
        logits: class logits, (B, N, classes).
        boxes: (B, N, 4) xyxy in pixels of the network's input, unclipped, float32.
        keypoint_boxes: what the keypoint stage pools from and its coordinates are relative to,
            (B, N, 4): the boxes, detached and enlarged by ``keypoint_box_scale``.
        queries: instance queries for the keypoint stage, (B, N, dim); refined where
            ``keypoint_features`` are given.
        keypoint_features: convolved RoI features, (B * N, dim, H, W), where the feedback of the
            full model computed them; None where the keypoint stage still has to, for the decoded
            queries alone.
    """

    logits: Tensor
    boxes: Tensor
    keypoint_boxes: Tensor
    queries: Tensor
    keypoint_features: Tensor | None

    def select(self, queries: slice) -> StageState:
        """The same state for a range of the queries of every image."""
        features = self.keypoint_features
        if features is not None:
            features = features.unflatten(0, self.boxes.shape[:2])[:, queries].flatten(0, 1)
        return StageState(
            self.logits[:, queries],
            self.boxes[:, queries],
            self.keypoint_boxes[:, queries],
            self.queries[:, queries],
            features,
        )
