"""Parameters and multiply-adds by part, counted by fvcore."""

from __future__ import annotations

import logging
from typing import NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from querypose.modeling import QueryPose
from querypose.modeling.decoder import QueryPoseDecoder
from querypose.modeling.keypoint_decoder import KeypointDecoderStage
from querypose.tools.benchmark.setting import Setting


class Cost(NamedTuple):
    """Of one picture.

    Attributes:
        parameters: of the whole model.
        backbone: multiply-adds, like those below.
        box_decoder: all stages, all queries.
        keypoint_query: all stages, one query.
    """

    parameters: int
    backbone: float
    box_decoder: float
    keypoint_query: float

    def multiply_adds(self, decoded_queries: int) -> float:
        """Of a picture with so many decoded queries."""
        return self.backbone + self.box_decoder + decoded_queries * self.keypoint_query


class KeypointStage(nn.Module):
    """A keypoint stage's two steps as one, which a counter can trace."""

    def __init__(self, stage: KeypointDecoderStage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, roi_features: Tensor, queries: Tensor, part_queries: Tensor) -> Tensor:
        """Coordinates of R instances; see :class:`KeypointDecoderStage`."""
        features, queries = self.stage.refine(roi_features, queries)
        return self.stage(features, queries, part_queries).coordinates

    @staticmethod
    def inputs(decoder: QueryPoseDecoder, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random inputs for so many instances."""
        side, device = decoder.keypoint_pooler.output_size[0], decoder.queries.weight.device
        dim = decoder.queries.embedding_dim
        return (
            torch.rand(count, dim, side, side, device=device),
            torch.rand(count, dim, device=device),
            torch.rand(count, *decoder.part_queries.weight.shape, device=device),
        )


def count_multiply_adds(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """fvcore's count, which leaves out element-wise operations."""
    analysis = FlopCountAnalysis(module, inputs)
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


@torch.no_grad()
def count_cost(model: QueryPose, setting: Setting) -> Cost:
    """Counts what inference on one picture of a setting takes."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    model.eval()
    decoder, device = model.decoder, model.device
    dim, num_queries = decoder.queries.embedding_dim, decoder.num_queries
    divisor = model.backbone.size_divisibility or 1
    height, width = (-(-side // divisor) * divisor for side in (setting.height, setting.width))
    side = decoder.box_pooler.output_size[0]
    box_inputs = (
        torch.rand(num_queries, dim, side, side, device=device),
        torch.tensor([0.0, 0.0, width, height], device=device).expand(1, num_queries, 4),
        torch.rand(1, num_queries, dim, device=device),
    )
    picture = torch.rand(1, 3, height, width, device=device)
    instance = KeypointStage.inputs(decoder, 1)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        backbone=count_multiply_adds(model.backbone, (picture,)),
        box_decoder=sum(count_multiply_adds(stage, box_inputs) for stage in decoder.box_stages),
        keypoint_query=sum(
            count_multiply_adds(KeypointStage(stage), instance) for stage in decoder.keypoint_stages
        ),
    )
