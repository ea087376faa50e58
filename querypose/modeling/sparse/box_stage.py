"""One stage of the box decoder: Sparse R-CNN's iterative head."""

from __future__ import annotations

import math
from typing import NamedTuple

from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor, nn

from querypose.modeling.sparse.dynamic_conv import DynamicConv
from querypose.modeling.sparse.feed_forward import FeedForward

# In Sparse R-CNN a stage enlarges a box at most by this factor.
_SCALE_CLAMP = math.log(100000.0 / 16)
_DELTA_WEIGHTS = (2.0, 2.0, 1.0, 1.0)


class BoxStageOutput(NamedTuple):
    """Output of one box stage for the N queries of B images.

    Attributes:
        logits: class logits, (B, N, classes).
        boxes: refined boxes, (B, N, 4) xyxy in pixels of the network's input, unclipped, float32.
        queries: updated instance queries, (B, N, dim).
    """

    logits: Tensor
    boxes: Tensor
    queries: Tensor


def _branch(dim: int, num_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [nn.Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class BoxDecoderStage(nn.Module):
    """Classifies every query and refines its box (paper section 3.1, Sparse R-CNN section 3.2).

    Args:
        dim: width of the instance queries.
        num_classes: number of classes.
        num_heads: heads of the self-attention among the queries of an image.
        ffn_dim: inner width of the feed-forward block.
        dynamic_dim: inner width of the dynamic convolution.
        pooler_resolution: side of the square RoI.
        num_cls_layers: linear layers before the class logit.
        num_box_layers: linear layers before the box deltas.
        prior_prob: class probability of an untrained query.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_classes: int,
        num_heads: int,
        ffn_dim: int,
        dynamic_dim: int,
        pooler_resolution: int,
        num_cls_layers: int = 1,
        num_box_layers: int = 3,
        prior_prob: float = 0.01,
    ) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(dim)
        self.interaction = DynamicConv(
            dim=dim, dynamic_dim=dynamic_dim, num_positions=pooler_resolution**2
        )
        self.interaction_norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim=dim, hidden_dim=ffn_dim)
        self.class_branch = _branch(dim, num_cls_layers)
        self.class_logits = nn.Linear(dim, num_classes)
        self.box_branch = _branch(dim, num_box_layers)
        self.box_deltas = nn.Linear(dim, 4)
        self.box_transform = Box2BoxTransform(_DELTA_WEIGHTS, _SCALE_CLAMP)
        self.prior_prob = prior_prob
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws Xavier-uniform weights; the class bias gives the prior probability."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(
            self.class_logits.bias, -math.log((1 - self.prior_prob) / self.prior_prob)
        )

    def forward(
        self,
        roi_features: Tensor,
        boxes: Tensor,
        queries: Tensor,
        attention_mask: Tensor | None = None,
    ) -> BoxStageOutput:
        """Refines the boxes and queries of the previous stage.

        Args:
            roi_features: (B * N, dim, H, W), pooled inside ``boxes``.
            boxes: of the previous stage, (B, N, 4) xyxy in pixels.
            queries: of the previous stage, (B, N, dim).
            attention_mask: (N, N) bool, True where a query (row) must not attend to another one
                (column).
        """
        attended, _ = self.self_attention(
            queries, queries, queries, attn_mask=attention_mask, need_weights=False
        )
        queries = self.attention_norm(queries + attended)
        update = self.interaction(queries.flatten(0, 1), roi_features).view_as(queries)
        queries = self.interaction_norm(queries + update)
        queries = self.feed_forward(queries)

        logits = self.class_logits(self.class_branch(queries))
        deltas = self.box_deltas(self.box_branch(queries))
        refined = self.box_transform.apply_deltas(deltas.flatten(0, 1), boxes.flatten(0, 1))
        return BoxStageOutput(logits, refined.view_as(boxes), queries)
