"""From the keypoint stages' outputs to keypoints in pixels and how good a person's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from querypose.modeling.box_coordinates import keypoints_to_pixels
from querypose.modeling.decoder import StageState
from querypose.modeling.keypoint_decoder import KeypointStageOutput
from querypose.modeling.query_rows import flat_rows
from querypose.skeleton import PERSON_AREA_PER_BOX_AREA, Skeleton

# Of a person in square pixels: an empty box has keypoints of no quality, not of NaN.
_SMALLEST_AREA = 1e-6


class DecodedPeople(NamedTuple):
    """Keypoints of R queries.

    Attributes:
        keypoints: (R, K, 3): x and y in pixels of the network's input, and a score.
        quality: (R,), in 0..1; a class score times it is a person's final score.
    """

    keypoints: Tensor
    quality: Tensor


class KeypointReadout(nn.Module):
    """Reads people off the keypoint stages: by default as the paper does (section 3.4).

    Args:
        oks_sigmas: per keypoint, as :class:`querypose.skeleton.Skeleton` has them.
        averaged_stages: a keypoint is the mean of what this many last stages say of it; 1 in the
            paper.
        expected_oks_power: the quality of a person is the expected OKS to this power, see
            :func:`expected_oks`; 0 takes the mean of the keypoint scores, as the paper does.
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
    ) -> DecodedPeople:
        """Reads R people.

        Args:
            outputs: of every keypoint stage, for the R queries.
            states: of every stage, for all queries of the pictures.
            query_indices: per picture, which queries.
        """
        rows = flat_rows(query_indices, states[-1].boxes.shape[1])
        keypoint_boxes = [
            state.keypoint_boxes.flatten(0, 1)[rows] for state in states[-self.averaged_stages :]
        ]
        places = [
            keypoints_to_pixels(output.coordinates, boxes)
            for output, boxes in zip(outputs[-self.averaged_stages :], keypoint_boxes, strict=True)
        ]
        scores = outputs[-1].scores[..., None]
        keypoints = torch.cat([torch.stack(places).mean(dim=0), scores], dim=-1)
        boxes = states[-1].boxes.flatten(0, 1)[rows]
        return DecodedPeople(keypoints, self._quality(outputs[-1], keypoint_boxes[-1], boxes))

    def _quality(
        self, output: KeypointStageOutput, keypoint_boxes: Tensor, boxes: Tensor
    ) -> Tensor:
        """(R,) of a stage's output and boxes (R, 4)."""
        if not self.expected_oks_power:
            return output.scores.mean(dim=-1)
        deviations = output.sigmas * _sides(keypoint_boxes)[:, None]
        areas = PERSON_AREA_PER_BOX_AREA * _sides(boxes).prod(dim=-1)
        return expected_oks(deviations, areas, self.oks_sigmas) ** self.expected_oks_power


def expected_oks(deviations: Tensor, areas: Tensor, oks_sigmas: Tensor) -> Tensor:
    """The object keypoint similarity to expect of keypoints with normally distributed errors.

    OKS counts an error of x pixels as exp(-x^2 / 2v), with v = area * (2 sigma)^2; its mean over
    errors of deviation s is sqrt(v / (v + s^2)) in one dimension.

    Args:
        deviations: (R, K, 2) pixels, along x and y.
        areas: of the people, (R,) square pixels.
        oks_sigmas: (K,).

    Returns:
        (R,), each in 0..1.
    """
    variance_of_oks = areas.clamp(min=_SMALLEST_AREA)[:, None] * (2 * oks_sigmas) ** 2
    similarity = (1 + deviations.square() / variance_of_oks[..., None]).rsqrt()
    return similarity.prod(dim=-1).mean(dim=-1)


def _sides(boxes: Tensor) -> Tensor:
    """Widths and heights of (R, 4) xyxy boxes, (R, 2)."""
    return boxes[:, 2:] - boxes[:, :2]
