"""From the keypoint stages' outputs to keypoints in pixels and how good a person's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from querypose.modeling.sparse.box_coordinates import keypoints_to_pixels
from querypose.modeling.sparse.decoder import StageState
from querypose.modeling.sparse.keypoint_stage import KeypointStageOutput
from querypose.modeling.sparse.query_rows import flat_rows
from querypose.oks import expected_oks, person_areas
from querypose.skeleton import Skeleton


class DecodedPeople(NamedTuple):
    """Keypoints of R queries.

    Attributes:
        keypoints: (R, K, 3): x and y in pixels of the network's input, and a score.
        quality: (R,), in 0..1; a class score times it is a person's final score.
        attention: of every stage and part, (R, S, P, h, w), where it was asked for.
        attention_boxes: what the maps of a stage cover, (R, S, 4) xyxy pixels.
    """

    keypoints: Tensor
    quality: Tensor
    attention: Tensor | None = None
    attention_boxes: Tensor | None = None

    def fields(self) -> dict[str, Tensor]:
        """What ``Instances`` hold of them."""
        fields = {"pred_keypoints": self.keypoints}
        if self.attention is not None:
            fields |= {
                "pred_attention": self.attention,
                "attention_boxes": self.attention_boxes,
            }
        return fields


class KeypointReadout(nn.Module):
    """Reads people off the keypoint stages: by default as the paper does (section 3.4).

    Args:
        oks_sigmas: per keypoint, as :class:`querypose.skeleton.Skeleton` has them.
        averaged_stages: a keypoint is the mean of what this many last stages say of it; 1 in the
            paper.
        expected_oks_power: the quality of a person is the expected OKS to this power, see
            :func:`querypose.oks.expected_oks`; 0 takes the mean of the keypoint scores, as the
            paper does.
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
        """Reads the readout's keys.

        Raises:
            ValueError: there are not so many stages, or the power is negative.
        """
        node = cfg.MODEL.QUERYPOSE
        if not 1 <= node.AVERAGED_STAGES <= node.NUM_STAGES:
            raise ValueError(
                "MODEL.QUERYPOSE.AVERAGED_STAGES is between 1 and NUM_STAGES, "
                f"{node.NUM_STAGES}, not {node.AVERAGED_STAGES}."
            )
        if node.EXPECTED_OKS_POWER < 0:
            raise ValueError(
                "MODEL.QUERYPOSE.EXPECTED_OKS_POWER is not negative, unlike "
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
            outputs: of every keypoint stage, for the R queries.
            states: of every stage, for all queries of the images.
            query_indices: per image, which queries.
            with_attention: also return where every part looked.
        """
        rows = flat_rows(query_indices, states[-1].boxes.shape[1])
        keypoint_boxes = [state.keypoint_boxes.flatten(0, 1)[rows] for state in states]
        places = [
            keypoints_to_pixels(output.coordinates, boxes)
            for output, boxes in zip(outputs, keypoint_boxes, strict=True)
        ][-self.averaged_stages :]
        scores = outputs[-1].scores[..., None]
        keypoints = torch.cat([torch.stack(places).mean(dim=0), scores], dim=-1)
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
        """(R,) of a stage's output and boxes (R, 4)."""
        if not self.expected_oks_power:
            return output.scores.mean(dim=-1)
        deviations = output.sigmas * _sides(keypoint_boxes)[:, None]
        expected = expected_oks(deviations, person_areas(boxes), self.oks_sigmas)
        return expected**self.expected_oks_power


def _sides(boxes: Tensor) -> Tensor:
    """Widths and heights of (R, 4) xyxy boxes, (R, 2)."""
    return boxes[:, 2:] - boxes[:, :2]
