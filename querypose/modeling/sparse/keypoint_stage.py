"""One stage of the keypoint decoder: from RoI features and part queries to keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from querypose.modeling.sparse.dynamic_conv import DynamicConv
from querypose.modeling.sparse.feed_forward import FeedForward
from querypose.modeling.sparse.part_attention import attention_centers
from querypose.modeling.sparse.part_heads import PartHeads
from querypose.modeling.sparse.part_queries import SelectiveIteration, SpatialPartEmbedding


class KeypointStageOutput(NamedTuple):
    """Output of one keypoint stage for R instances.

    Attributes:
        coordinates: (R, K, 2), float32, relative to the keypoint box of the stage: 0 is its center,
            +-0.5 its edges.
        sigmas: (R, K, 2), float32 in (0, 1), the predicted deviations in units of that box.
        part_queries: (R, P, part_dim), for the next stage.
        attention: (R, P, 2H, 2W), one map per part, each summing to 1.
    """

    coordinates: Tensor
    sigmas: Tensor
    part_queries: Tensor
    attention: Tensor

    @property
    def scores(self) -> Tensor:
        """Confidence of every keypoint, (R, K): one minus its mean sigma."""
        return 1 - self.sigmas.mean(dim=-1)


class QueryFeedback(nn.Module):
    """Refines the instance query by the keypoint features (full model, paper section 3.1).

    Args:
        dim: width of queries and RoI features.
        dynamic_dim: inner width of the dynamic convolution.
        num_positions: height times width of the RoI.
        ffn_dim: inner width of the feed-forward block.
    """

    def __init__(self, *, dim: int, dynamic_dim: int, num_positions: int, ffn_dim: int) -> None:
        super().__init__()
        self.interaction = DynamicConv(
            dim=dim, dynamic_dim=dynamic_dim, num_positions=num_positions
        )
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim=dim, hidden_dim=ffn_dim)

    def forward(self, queries: Tensor, roi_features: Tensor) -> Tensor:
        """Refines (R, dim) queries by their (R, dim, H, W) features."""
        return self.feed_forward(self.norm(queries + self.interaction(queries, roi_features)))


def _convolutions(dim: int, num_convs: int) -> nn.Sequential:
    channels = [dim, *[2 * dim] * (num_convs - 1), dim]
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise(channels):
        layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class KeypointDecoderStage(nn.Module):
    """Refines the part queries of every instance and regresses its keypoints (paper section 3).

    No step mixes instances, so any subset of them can be decoded.

    Args:
        dim: width of RoI features and instance queries.
        part_dim: width of part queries.
        part_indices: the keypoints of each part.
        num_heads: heads of the self-attention among the part queries of one instance.
        ffn_dim: inner width of the feed-forward blocks.
        num_convs: 3x3 convolutions on the RoI features, at least one.
        pooler_resolution: side of the square RoI.
        dynamic_dim: inner width of the dynamic convolution of the feedback.
        feedback: refine the instance query, too (full model).
        checkpoint_convs: recompute the convolutions in the backward pass. They hold most of the
            activations of a stage.
        attention_anchors: regress a keypoint from the center of its part's attention, as integral
            regression does (Sun et al., ECCV 2018), not from the center of the box.

    Raises:
        ValueError: ``num_convs`` is below 1.
    """

    def __init__(
        self,
        *,
        dim: int,
        part_dim: int,
        part_indices: Sequence[Sequence[int]],
        num_heads: int,
        ffn_dim: int,
        num_convs: int,
        pooler_resolution: int,
        dynamic_dim: int,
        feedback: bool,
        checkpoint_convs: bool = False,
        attention_anchors: bool = False,
    ) -> None:
        super().__init__()
        if num_convs < 1:
            raise ValueError(
                f"MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS must be at least 1, got {num_convs}."
            )
        self.convs = _convolutions(dim, num_convs)
        self.checkpoint_convs = checkpoint_convs
        self.attention_anchors = attention_anchors
        self.feedback = None
        if feedback:
            self.feedback = QueryFeedback(
                dim=dim,
                dynamic_dim=dynamic_dim,
                num_positions=pooler_resolution**2,
                ffn_dim=ffn_dim,
            )
        self.part_embedding = SpatialPartEmbedding(
            dim=dim, part_dim=part_dim, num_parts=len(part_indices)
        )
        self.selective_iteration = SelectiveIteration(part_dim=part_dim)
        self.self_attention = nn.MultiheadAttention(part_dim, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(part_dim)
        self.feed_forward = FeedForward(dim=part_dim, hidden_dim=ffn_dim)
        self.heads = PartHeads(part_dim=part_dim, part_indices=part_indices)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws Xavier-uniform weights."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.part_embedding.reset_parameters()
        self.heads.reset_parameters()

    def parts(self) -> list[nn.Module]:
        """The modules that :meth:`refine` and then :meth:`forward` call, in that order."""
        feedback = [] if self.feedback is None else [self.feedback]
        return [self.convs, *feedback, self]

    def refine(self, roi_features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Runs the steps before the parts, which the next box stage of the full model waits for.

        Args:
            roi_features: pooled features, (R, dim, H, W).
            queries: instance queries, (R, dim).

        Returns:
            Convolved features, (R, dim, H, W), and queries, (R, dim), refined in the full model.
        """
        if self.checkpoint_convs and self.training:
            features = checkpoint(self.convs, roi_features, use_reentrant=False)
        else:
            features = self.convs(roi_features)
        if self.feedback is not None:
            queries = self.feedback(queries, features)
        return features, queries

    def forward(
        self, features: Tensor, queries: Tensor, part_queries: Tensor
    ) -> KeypointStageOutput:
        """Decodes the keypoints of R instances.

        Args:
            features: from :meth:`refine`, (R, dim, H, W).
            queries: from :meth:`refine`, (R, dim).
            part_queries: of these instances, from the previous stage, (R, P, part_dim).
        """
        embeddings, attention = self.part_embedding(features, queries)
        part_queries = self.selective_iteration(embeddings, part_queries)
        attended, _ = self.self_attention(
            part_queries, part_queries, part_queries, need_weights=False
        )
        part_queries = self.attention_norm(part_queries + attended)
        part_queries = self.feed_forward(part_queries)
        coordinates, sigmas = self.heads(part_queries)
        if self.attention_anchors:
            centers = attention_centers(attention)
            coordinates = coordinates + centers[:, self.heads.part_of_keypoint]
        return KeypointStageOutput(coordinates, sigmas, part_queries, attention)
