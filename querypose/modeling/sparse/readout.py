"""From the outputs of the keypoint stages to keypoints in pixels and their quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

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
    """

    @configurable
    def __init__(
        self,
        *,
        oks_sigmas: Sequence[float],
        averaged_stages: int = 1,
        expected_oks_power: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("oks_sigmas", torch.tensor(oks_sigmas), persistent=False)
        self.averaged_stages = averaged_stages
        self.expected_oks_power = expected_oks_power

    @classmethod
    def from_config(cls, cfg: CfgNode, skeleton: Skeleton) -> dict[str, Any]:
        """Reads ``MODEL.QUERYPOSE.AVERAGED_STAGES`` and ``EXPECTED_OKS_POWER``.

        Raises:
            ValueError: there are fewer stages, or the power is negative.
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
        return {
            "oks_sigmas": skeleton.sigmas,
            "averaged_stages": node.AVERAGED_STAGES,
            "expected_oks_power": node.EXPECTED_OKS_POWER,
        }

    def forward(
        self,
        outputs: Sequence[KeypointStageOutput],
        states: Sequence[StageState],
        query_indices: Sequence[Tensor],
        *,
        with_attention: bool = False,
    ) -> DecodedPeople:
        """Reads R people.

        Args:
            outputs: of every keypoint stage, for R queries.
            states: of every stage, for all queries of the images.
            query_indices: per image, the R queries.
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
