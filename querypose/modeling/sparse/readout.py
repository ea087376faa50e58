"""From the outputs of the keypoint stages to keypoints in pixels and their quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from querypose.modeling.pose_nms import best_of_alike
from querypose.modeling.sparse.box_coordinates import keypoints_to_pixels
from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.query_rows import flat_rows
from querypose.modeling.sparse.stage_state import StageState
from querypose.oks import expected_oks, person_areas
from querypose.skeleton import Skeleton


class DecodedPeople(NamedTuple):
    """Keypoints of R queries.

    Attributes:
        keypoints: (R, K, 3): x and y in pixels of the network's input, and a score.
        quality: (R,), in 0..1; the final score of a person is the class score times it.
        attention: of every stage and part, (R, S, P, h, w), where it was requested.
        attention_boxes: what the maps of every stage cover, (R, S, 4) xyxy pixels.
    """

    keypoints: Tensor
    quality: Tensor
    attention: Tensor | None = None
    attention_boxes: Tensor | None = None

    def fields(self) -> dict[str, Tensor]:
        """The fields that ``Instances`` have of them."""
        fields = {"pred_keypoints": self.keypoints}
        if self.attention is not None:
            fields |= {
                "pred_attention": self.attention,
                "attention_boxes": self.attention_boxes,
            }
        return fields


class KeypointReadout(nn.Module):
    """Reads people off the keypoint stages (paper section 3.4, where the defaults are used).

    Args:
        oks_sigmas: per keypoint, as in :class:`querypose.skeleton.Skeleton`.
        averaged_stages: a keypoint is the mean over this many last stages; 1 in the paper.
        expected_oks_power: the quality of a person is the expected OKS to this power, see
            :func:`querypose.oks.expected_oks`. With 0 it is the mean of the keypoint scores, as in
            the paper.
        nms_oks_threshold: of people of one class whose OKS with each other is higher only the best
            is kept; 1 keeps everybody, as in the paper.
    """

    @configurable
    def __init__(
        self,
        *,
        oks_sigmas: Sequence[float],
        averaged_stages: int = 1,
        expected_oks_power: float = 0.0,
        nms_oks_threshold: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("oks_sigmas", torch.tensor(oks_sigmas), persistent=False)
        self.averaged_stages = averaged_stages
        self.expected_oks_power = expected_oks_power
        self.nms_oks_threshold = nms_oks_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode, skeleton: Skeleton) -> dict[str, Any]:
        """Reads ``AVERAGED_STAGES``, ``EXPECTED_OKS_POWER`` and ``NMS_OKS_THRESHOLD``.

        Raises:
            ValueError: there are fewer stages, the power is negative, or the threshold is not
                within 0..1.
        """
        node = cfg.MODEL.QUERYPOSE
        if not 1 <= node.AVERAGED_STAGES <= node.NUM_STAGES:
            raise ValueError(
                f"MODEL.QUERYPOSE.AVERAGED_STAGES must be between 1 and NUM_STAGES "
                f"({node.NUM_STAGES}), not {node.AVERAGED_STAGES}."
            )
        if node.EXPECTED_OKS_POWER < 0:
            raise ValueError(
                "MODEL.QUERYPOSE.EXPECTED_OKS_POWER must not be negative, but is "
                f"{node.EXPECTED_OKS_POWER}."
            )
        if not 0 <= node.NMS_OKS_THRESHOLD <= 1:
            raise ValueError(
                f"MODEL.QUERYPOSE.NMS_OKS_THRESHOLD is within 0..1, not {node.NMS_OKS_THRESHOLD}."
            )
        return {
            "oks_sigmas": skeleton.sigmas,
            "averaged_stages": node.AVERAGED_STAGES,
            "expected_oks_power": node.EXPECTED_OKS_POWER,
            "nms_oks_threshold": node.NMS_OKS_THRESHOLD,
        }

    def forward(
        self,
        outputs: Sequence[KeypointStageOutput],
        states: Sequence[StageState],
        query_indices: Tensor | Sequence[Tensor],
        *,
        with_attention: bool = False,
    ) -> DecodedPeople:
        """Reads R people.

        Args:
            outputs: of every keypoint stage, for R queries.
            states: of every stage, for all queries of the images.
            query_indices: the R queries, see
                :func:`~querypose.modeling.sparse.query_rows.flat_rows`.
            with_attention: also return the attention of every part.
        """
        rows = flat_rows(query_indices, states[-1].boxes.shape[1])
        keypoint_boxes = [state.keypoint_boxes.flatten(0, 1)[rows] for state in states]
        points = [
            keypoints_to_pixels(output.coordinates, boxes)
            for output, boxes in zip(outputs, keypoint_boxes, strict=True)
        ][-self.averaged_stages :]
        scores = outputs[-1].scores[..., None]
        keypoints = torch.cat([torch.stack(points).mean(dim=0), scores], dim=-1)
        boxes = states[-1].boxes.flatten(0, 1)[rows]
        people = DecodedPeople(keypoints, self._quality(outputs[-1], keypoint_boxes[-1], boxes))
        if not with_attention:
            return people
        attention = torch.stack([output.attention.float() for output in outputs], dim=1)
        return people._replace(
            attention=attention, attention_boxes=torch.stack(keypoint_boxes, dim=1)
        )

    def suppress(self, scores: Tensor, keypoints: Tensor, classes: Tensor, boxes: Tensor) -> Tensor:
        """Drops people who resemble a better one of their image and class.

        Args:
            scores: (B, N), -inf for nobody.
            keypoints: (B, N, K, 3).
            classes: (B, N).
            boxes: (B, N, 4) xyxy.

        Returns:
            The scores, -inf for nobody and for those who are dropped.
        """
        if self.nms_oks_threshold == 1:
            return scores
        best = best_of_alike(
            keypoints[..., :2], scores, self.oks_sigmas, self.nms_oks_threshold, classes, boxes
        )
        return torch.where(best, scores, -torch.inf)

    def _quality(
        self, output: KeypointStageOutput, keypoint_boxes: Tensor, boxes: Tensor
    ) -> Tensor:
        """(R,) of the output of a stage and its boxes, (R, 4) each."""
        if not self.expected_oks_power:
            return output.scores.mean(dim=-1)
        sizes = keypoint_boxes[:, 2:] - keypoint_boxes[:, :2]
        deviations = output.sigmas * sizes[:, None]
        expected = expected_oks(deviations, person_areas(boxes), self.oks_sigmas)
        return expected**self.expected_oks_power
