"""The order in which box and keypoint stages run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from querypose.modeling.sparse.box_coordinates import scale_boxes
from querypose.modeling.sparse.box_stage import BoxDecoderStage
from querypose.modeling.sparse.keypoint_stage import KeypointDecoderStage, KeypointStageOutput
from querypose.modeling.sparse.proposals import initial_proposals
from querypose.modeling.sparse.query_rows import flat_rows, positions_among
from querypose.modeling.sparse.roi_pooling import build_pooler, pool
from querypose.skeleton import Skeleton


class StageState(NamedTuple):
    """B images' N queries after one stage.

    Attributes:
        logits: class logits, (B, N, classes).
        boxes: (B, N, 4) xyxy in pixels of the network's input, unclipped, float32.
        keypoint_boxes: what the keypoint stage pools from and its coordinates relate to, (B, N, 4):
            the boxes, detached and enlarged by ``keypoint_box_scale``.
        queries: instance queries for the keypoint stage, (B, N, dim); refined where
            ``keypoint_features`` are there.
        keypoint_features: convolved RoI features, (B * N, dim, H, W), where the full model needed
            them for its feedback; None where the keypoint stage computes them for the rows it is
            asked.
    """

    logits: Tensor
    boxes: Tensor
    keypoint_boxes: Tensor
    queries: Tensor
    keypoint_features: Tensor | None

    def select(self, queries: slice) -> StageState:
        """The same of some queries of every image."""
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


class QueryPoseDecoder(nn.Module):
    """Instance queries become boxes, and those that are asked for become keypoints (section 3).

    In the light model nothing flows from keypoints to boxes, so all box stages run first and the
    keypoint stages see only the queries worth decoding. In the full model every keypoint stage
    refines all instance queries for the next box stage; only its part-level steps can wait.

    Args:
        box_stages: one per stage.
        keypoint_stages: one per stage.
        box_pooler: pools (dim, H, W) features for the box stages.
        keypoint_pooler: the same for the keypoint stages.
        box_in_features: names of the feature maps that the box pooler reads.
        keypoint_in_features: names of those that the keypoint pooler reads.
        num_queries: N.
        dim: width of the instance queries.
        num_parts: P.
        part_dim: width of the part queries.
        feedback: whether keypoint stages refine the instance query (full model).
        proposals: where the queries of an untrained model look, see :func:`initial_proposals`.
        keypoint_box_scale: what the keypoint stages see of a person, in widths and heights of the
            box about its center; 1 in the paper.
    """

    @configurable
    def __init__(
        self,
        *,
        box_stages: Sequence[BoxDecoderStage],
        keypoint_stages: Sequence[KeypointDecoderStage],
        box_pooler: ROIPooler,
        keypoint_pooler: ROIPooler,
        box_in_features: Sequence[str],
        keypoint_in_features: Sequence[str],
        num_queries: int,
        dim: int,
        num_parts: int,
        part_dim: int,
        feedback: bool,
        proposals: str = "image",
        keypoint_box_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.queries = nn.Embedding(num_queries, dim)
        self.proposal_boxes = nn.Embedding(num_queries, 4)
        self.part_queries = nn.Embedding(num_parts, part_dim)
        self.box_stages = nn.ModuleList(box_stages)
        self.keypoint_stages = nn.ModuleList(keypoint_stages)
        self.box_pooler = box_pooler
        self.keypoint_pooler = keypoint_pooler
        self.box_in_features = list(box_in_features)
        self.keypoint_in_features = list(keypoint_in_features)
        self.feedback = feedback
        self.keypoint_box_scale = keypoint_box_scale
        with torch.no_grad():
            self.proposal_boxes.weight.copy_(initial_proposals(num_queries, proposals))

    @classmethod
    def from_config(
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec], skeleton: Skeleton
    ) -> dict[str, object]:
        """Reads the decoder's keys.

        Raises:
            ValueError: the backbone's width is not the decoder's, heads do not divide a width, or
                the keypoints' boxes would be empty.
        """
        node = cfg.MODEL.QUERYPOSE
        _check(cfg, input_shape)
        shared = {
            "num_heads": node.NUM_ATTENTION_HEADS,
            "ffn_dim": node.FFN_DIM,
            "dynamic_dim": node.DYNAMIC_DIM,
            "dim": node.HIDDEN_DIM,
        }
        box = {
            "num_classes": node.NUM_CLASSES,
            "pooler_resolution": cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
        }
        keypoint = {
            "part_dim": node.PART_DIM,
            "part_indices": skeleton.part_indices,
            "num_convs": node.NUM_KEYPOINT_CONVS,
            "pooler_resolution": cfg.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION,
            "feedback": node.KEYPOINT_FEEDBACK,
            "checkpoint_convs": node.CHECKPOINT_KEYPOINTS,
            "attention_anchors": node.ATTENTION_ANCHORS,
        }
        box_in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        # Keypoints are looked for in the finest map alone.
        keypoint_in_features = box_in_features[:1]
        stages = range(node.NUM_STAGES)
        return {
            "box_stages": [BoxDecoderStage(**shared, **box) for _ in stages],
            "keypoint_stages": [KeypointDecoderStage(**shared, **keypoint) for _ in stages],
            "box_pooler": build_pooler(cfg.MODEL.ROI_BOX_HEAD, box_in_features, input_shape),
            "keypoint_pooler": build_pooler(
                cfg.MODEL.ROI_KEYPOINT_HEAD, keypoint_in_features, input_shape
            ),
            "box_in_features": box_in_features,
            "keypoint_in_features": keypoint_in_features,
            "num_queries": node.NUM_QUERIES,
            "dim": node.HIDDEN_DIM,
            "num_parts": len(skeleton.parts),
            "part_dim": node.PART_DIM,
            "feedback": node.KEYPOINT_FEEDBACK,
            "proposals": node.PROPOSALS,
            "keypoint_box_scale": node.KEYPOINT_BOX_SCALE,
        }

    @property
    def num_queries(self) -> int:
        """How many instance queries an image has."""
        return self.queries.num_embeddings

    def forward(
        self,
        features: dict[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        extra_boxes: Tensor | None = None,
    ) -> list[StageState]:
        """Runs all box stages, and of the keypoint stages what they wait for.

        Args:
            features: float32 maps by name, (B, dim, H / stride, W / stride).
            image_sizes: (height, width) of each unpadded image.
            extra_boxes: where additional queries start, (B, D, 4) xyxy in pixels. The learned
                queries take no notice of them.

        Returns:
            One state per stage, of the N learned queries and then the D additional ones.
        """
        boxes = self._initial_boxes(image_sizes)
        queries = self.queries.weight.expand(len(image_sizes), -1, -1)
        attention_mask = None
        if extra_boxes is not None:
            boxes = torch.cat([boxes, extra_boxes], dim=1)
            queries = torch.cat([queries, self._draw_queries(extra_boxes)], dim=1)
            attention_mask = self._hide_extras(extra_boxes)
        last = len(self.box_stages) - 1
        states = []
        for index, (box_stage, keypoint_stage) in enumerate(
            zip(self.box_stages, self.keypoint_stages, strict=True)
        ):
            roi_features = pool(self.box_pooler, features, self.box_in_features, boxes)
            logits, refined, queries = box_stage(roi_features, boxes, queries, attention_mask)
            boxes = refined.detach()
            keypoint_boxes = scale_boxes(boxes, self.keypoint_box_scale)
            state = StageState(logits, refined, keypoint_boxes, queries, None)
            # After the last stage nothing waits for the feedback.
            if self.feedback and index < last:
                state, queries = self._feed_back(features, keypoint_stage, state)
            states.append(state)
        return states

    def _draw_queries(self, extra_boxes: Tensor) -> Tensor:
        """A random learned query for every additional box, (B, D, dim)."""
        # Drawn on the CPU: the same on every device.
        drawn = torch.randint(self.num_queries, extra_boxes.shape[:2])
        return self.queries.weight[drawn.to(extra_boxes.device)]

    def _hide_extras(self, extra_boxes: Tensor) -> Tensor:
        """Lets every query look at the learned ones and at itself, (N + D, N + D) bool."""
        total = self.num_queries + extra_boxes.shape[1]
        hidden = ~torch.eye(total, dtype=torch.bool, device=extra_boxes.device)
        hidden[:, : self.num_queries] = False
        return hidden

    def _feed_back(
        self, features: dict[str, Tensor], stage: KeypointDecoderStage, state: StageState
    ) -> tuple[StageState, Tensor]:
        """Refines the instance queries for the next box stage, (B, N, dim)."""
        boxes, queries = state.keypoint_boxes, state.queries
        pooled = self._pool_keypoints(features, boxes)
        keypoint_features, refined = stage.refine(pooled, queries.flatten(0, 1))
        refined = refined.view_as(queries)
        return state._replace(queries=refined, keypoint_features=keypoint_features), refined

    def split(self, states: Sequence[StageState]) -> tuple[list[StageState], list[StageState]]:
        """Tells learned from additional queries."""
        learned = [state.select(slice(self.num_queries)) for state in states]
        return learned, [state.select(slice(self.num_queries, None)) for state in states]

    def decode_keypoints(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        query_indices: Sequence[Sequence[Tensor]],
    ) -> list[KeypointStageOutput]:
        """Decodes the keypoints of chosen queries.

        Args:
            features: as in :meth:`forward`.
            states: from :meth:`forward`.
            query_indices: per stage and image, which queries, (R_i,) int64; a stage can only
                decode what the stage before it decoded.

        Returns:
            Per stage, the output of R = sum of R_i instances in the order of the images. With R =
            0 the output is empty, and still joined to every parameter that it would have used.
        """
        part_queries = self.part_queries.weight.expand(states[0].boxes.shape[:2].numel(), -1, -1)
        previous_rows = torch.arange(len(part_queries), device=part_queries.device)
        outputs = []
        for stage, state, indices in zip(self.keypoint_stages, states, query_indices, strict=True):
            rows = flat_rows(indices, state.boxes.shape[1])
            if len(rows) == 0:
                outputs.append(self._no_keypoints(stage))
                continue
            part_queries = part_queries[positions_among(previous_rows, rows)]
            queries = state.queries.flatten(0, 1)[rows]
            if state.keypoint_features is None:
                boxes = [
                    boxes[index] for boxes, index in zip(state.keypoint_boxes, indices, strict=True)
                ]
                stage_features, queries = stage.refine(
                    self._pool_keypoints(features, boxes), queries
                )
            else:
                stage_features = state.keypoint_features[rows]
            outputs.append(stage(stage_features, queries, part_queries))
            part_queries, previous_rows = outputs[-1].part_queries, rows
        return outputs

    def _no_keypoints(self, stage: KeypointDecoderStage) -> KeypointStageOutput:
        """An empty output that gives every parameter of a stage a zero gradient.

        Batch norm cannot take statistics of nothing, and DDP waits for every parameter.
        """
        parameters = [*stage.parameters(), self.part_queries.weight]
        nothing = sum(parameter.sum() for parameter in parameters) * 0
        points = nothing.expand(0, len(stage.heads.coordinate_bias), 2)
        part_queries = nothing.expand(0, *self.part_queries.weight.shape)
        attention = nothing.expand(0, self.part_queries.num_embeddings, 1, 1)
        return KeypointStageOutput(points, points, part_queries, attention)

    def _initial_boxes(self, image_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Proposal boxes as (B, N, 4) xyxy pixels."""
        center, size = self.proposal_boxes.weight.split(2, dim=1)
        relative = torch.cat([center - size / 2, center + size / 2], dim=1)
        scale = relative.new_tensor([(width, height) * 2 for height, width in image_sizes])
        return relative[None] * scale[:, None]

    def _pool_keypoints(self, features: dict[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        return pool(self.keypoint_pooler, features, self.keypoint_in_features, boxes)


def _check(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
    node = cfg.MODEL.QUERYPOSE
    if node.KEYPOINT_BOX_SCALE <= 0:
        raise ValueError(
            f"MODEL.QUERYPOSE.KEYPOINT_BOX_SCALE is above 0, not {node.KEYPOINT_BOX_SCALE}."
        )
    for name in cfg.MODEL.ROI_HEADS.IN_FEATURES:
        if name not in input_shape:
            raise ValueError(f"The backbone gives {sorted(input_shape)}, not {name!r}.")
        if input_shape[name].channels != node.HIDDEN_DIM:
            raise ValueError(
                f"The backbone's {name} has {input_shape[name].channels} channels, but "
                f"MODEL.QUERYPOSE.HIDDEN_DIM is {node.HIDDEN_DIM}: "
                "set MODEL.FPN.OUT_CHANNELS to it."
            )
    for key in ("HIDDEN_DIM", "PART_DIM"):
        if node[key] % node.NUM_ATTENTION_HEADS:
            raise ValueError(
                f"MODEL.QUERYPOSE.{key} ({node[key]}) must be a multiple of "
                f"MODEL.QUERYPOSE.NUM_ATTENTION_HEADS ({node.NUM_ATTENTION_HEADS})."
            )
