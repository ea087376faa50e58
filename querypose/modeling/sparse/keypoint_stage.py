"""One stage of the keypoint decoder: part embeddings, selective iteration, part heads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from querypose.modeling.sparse.dynamic_conv import DynamicConv
from querypose.modeling.sparse.feed_forward import FeedForward

# SIM squeezes the part width by this factor before it computes its gates.
_GATE_REDUCTION = 4
# The deconvolution of SPEGM doubles the RoI's resolution.
_UPSAMPLE_KERNEL, _UPSAMPLE_STRIDE, _UPSAMPLE_PADDING = 4, 2, 1


class KeypointStageOutput(NamedTuple):
    """What one keypoint stage says of R instances.

    Attributes:
        coordinates: (R, K, 2), float32, relative to the stage's box: 0 its center, +-0.5 its edges.
        sigmas: (R, K, 2), float32 in (0, 1), the predicted deviations in units of the box.
        part_queries: (R, P, part_dim), for the next stage.
        attention: (R, P, 2H, 2W), each part's map of weights that sum to 1.
    """

    coordinates: Tensor
    sigmas: Tensor
    part_queries: Tensor
    attention: Tensor

    @property
    def scores(self) -> Tensor:
        """Confidence of every keypoint, (R, K): one minus its mean sigma."""
        return 1 - self.sigmas.mean(dim=-1)


class SpatialPartEmbedding(nn.Module):
    """Spatial part embedding generation module, SPEGM (paper section 3.2).

    Each part attends to its own places of the upsampled RoI; the instance query adds what the
    person's whole appearance says of the part.

    Args:
        dim: width of RoI features and of instance queries.
        part_dim: width of part embeddings.
        num_parts: P.
    """

    def __init__(self, *, dim: int, part_dim: int, num_parts: int) -> None:
        super().__init__()
        self.num_parts = num_parts
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(
                dim, dim, _UPSAMPLE_KERNEL, _UPSAMPLE_STRIDE, _UPSAMPLE_PADDING, bias=False
            ),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
        )
        self.attention_conv = nn.Conv2d(dim, num_parts, 3, padding=1)
        self.embedding = nn.Linear(dim, part_dim)
        # One projection of the instance query per part, side by side in one matrix.
        self.query_projection = nn.Linear(dim, num_parts * part_dim)

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, every part's projection by its own fan."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for projection in self.query_projection.weight.chunk(self.num_parts):
            nn.init.xavier_uniform_(projection)

    def forward(self, roi_features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds the parts of R instances.

        Args:
            roi_features: (R, dim, H, W).
            queries: (R, dim).

        Returns:
            Part embeddings (R, P, part_dim) and attention maps (R, P, 2H, 2W).
        """
        features = self.upsample(roi_features)
        attention = self.attention_conv(features).flatten(2).softmax(dim=-1)
        pooled = torch.bmm(attention, features.flatten(2).transpose(1, 2))
        embeddings = self.embedding(pooled)
        embeddings = embeddings + self.query_projection(queries).view_as(embeddings)
        return embeddings, attention.unflatten(-1, features.shape[-2:])


class SelectiveIteration(nn.Module):
    """Selective iteration module, SIM (paper section 3.3).

    Gates choose, channel by channel, between the new part embedding and the part query of the
    previous stage.

    Args:
        part_dim: width of part embeddings and part queries.
    """

    def __init__(self, *, part_dim: int) -> None:
        super().__init__()
        squeezed = part_dim // _GATE_REDUCTION
        self.squeeze = nn.Linear(part_dim, squeezed, bias=False)
        self.norm = nn.LayerNorm(squeezed)
        self.activation = nn.ReLU(inplace=True)
        self.gates = nn.Linear(squeezed, 2 * part_dim)

    def forward(self, embeddings: Tensor, part_queries: Tensor) -> Tensor:
        """Combines (R, P, part_dim) embeddings and part queries into new part queries."""
        hidden = self.activation(self.norm(self.squeeze(embeddings + part_queries)))
        keep_new, keep_old = self.gates(hidden).sigmoid().chunk(2, dim=-1)
        return embeddings * keep_new + part_queries * keep_old


class PartHeads(nn.Module):
    """Coordinates and sigmas of all keypoints, each from its part's query (paper section 3.4).

    A part with k keypoints has a coordinate and a sigma head of 2k outputs. The heads of all parts
    lie in one tensor, in the dataset's keypoint order, so that no regrouping is needed.

    Args:
        part_dim: width of part queries.
        part_indices: the keypoints of each part.
    """

    def __init__(self, *, part_dim: int, part_indices: Sequence[Sequence[int]]) -> None:
        super().__init__()
        num_keypoints = sum(len(part) for part in part_indices)
        part_of_keypoint = torch.empty(num_keypoints, dtype=torch.long)
        for part, keypoints in enumerate(part_indices):
            part_of_keypoint[list(keypoints)] = part
        self.register_buffer("part_of_keypoint", part_of_keypoint, persistent=False)
        self.part_indices = [list(part) for part in part_indices]
        self.coordinate_weight = nn.Parameter(torch.empty(num_keypoints, 2, part_dim))
        self.coordinate_bias = nn.Parameter(torch.zeros(num_keypoints, 2))
        self.sigma_weight = nn.Parameter(torch.empty(num_keypoints, 2, part_dim))
        self.sigma_bias = nn.Parameter(torch.zeros(num_keypoints, 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform by each part's own fan; biases as ``nn.Linear`` draws them."""
        part_dim = self.coordinate_weight.shape[-1]
        with torch.no_grad():
            for keypoints in self.part_indices:
                for weight in (self.coordinate_weight, self.sigma_weight):
                    head = weight.new_empty(2 * len(keypoints), part_dim)
                    weight[keypoints] = nn.init.xavier_uniform_(head).view(-1, 2, part_dim)
        bound = part_dim**-0.5
        nn.init.uniform_(self.coordinate_bias, -bound, bound)
        nn.init.uniform_(self.sigma_bias, -bound, bound)

    def forward(self, part_queries: Tensor) -> tuple[Tensor, Tensor]:
        """Regresses (R, K, 2) coordinates and sigmas from (R, P, part_dim) part queries."""
        # Half precision would round coordinates to whole pixels on a large person.
        with torch.autocast(part_queries.device.type, enabled=False):
            tokens = part_queries.float()[:, self.part_of_keypoint]
            directed = torch.einsum("rkd,kcd->rkc", tokens, self.coordinate_weight)
            coordinates = directed / tokens.norm(dim=-1, keepdim=True) + self.coordinate_bias
            logits = torch.einsum("rkd,kcd->rkc", tokens, self.sigma_weight) + self.sigma_bias
            # Of an infinite logit the sigmoid alone would make a certain keypoint.
            return coordinates, logits.sigmoid() + 0 * logits


class QueryFeedback(nn.Module):
    """Lets the keypoint features refine the instance query (full model, paper section 3.1).

    Args:
        dim: width of queries and RoI features.
        dynamic_dim: inner width of the dynamic convolution.
        num_positions: RoI height times width.
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
        told = self.interaction(queries, roi_features)
        return self.feed_forward(self.norm(queries + told))


def _conv_trunk(dim: int, num_convs: int) -> nn.Sequential:
    channels = [dim, *[2 * dim] * (num_convs - 1), dim]
    layers: list[nn.Module] = []
    for in_channels, out_channels in pairwise(channels):
        layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class KeypointDecoderStage(nn.Module):
    """Refines the part queries of every instance and reads its keypoints off them (section 3).

    No step mixes instances, so any subset of them may be decoded.

    Args:
        dim: width of RoI features and instance queries.
        part_dim: width of part queries.
        part_indices: the keypoints of each part.
        num_heads: heads of the self-attention among one instance's part queries.
        ffn_dim: inner width of the feed-forward blocks.
        num_convs: 3x3 convolutions on the RoI features, at least one.
        pooler_resolution: side of the square RoI.
        dynamic_dim: inner width of the feedback's dynamic convolution.
        feedback: refine the instance query too (full model).
        checkpoint_convs: recompute the convolutions in the backward pass. They hold most of a
            stage's activations.
        attention_anchors: regress a keypoint from the center of its part's attention, as integral
            regression does (Sun et al., ECCV 2018), instead of from the center of the box.

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
            raise ValueError(f"NUM_KEYPOINT_CONVS must be at least 1, got {num_convs}.")
        self.convs = _conv_trunk(dim, num_convs)
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
        """Xavier-uniform on every weight of more than one dimension."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.part_embedding.reset_parameters()
        self.heads.reset_parameters()

    def parts(self) -> list[nn.Module]:
        """What :meth:`refine` and then :meth:`forward` call, one after the other."""
        feedback = [] if self.feedback is None else [self.feedback]
        return [self.convs, *feedback, self]

    def refine(self, roi_features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The steps before the parts: what the full model's next box stage waits for.

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
            part_queries: the same instances' part queries after the previous stage, (R, P,
                part_dim).
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


def attention_centers(attention: Tensor) -> Tensor:
    """Where attention maps look on average, box-relative: 0 the box's center, +-0.5 its edges.

    Args:
        attention: (R, P, H, W), each map summing to 1.

    Returns:
        (R, P, 2) x and y, float32.
    """
    attention = attention.float()
    height, width = attention.shape[-2:]
    x = (torch.arange(width, device=attention.device) + 0.5) / width - 0.5
    y = (torch.arange(height, device=attention.device) + 0.5) / height - 0.5
    columns, rows = attention.sum(dim=-2), attention.sum(dim=-1)
    return torch.stack([(columns * x).sum(dim=-1), (rows * y).sum(dim=-1)], dim=-1)
