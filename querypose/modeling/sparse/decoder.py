"""The decoder: box stages, keypoint stages, and the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn
from torchvision.ops import box_convert

from querypose.modeling.sparse.box_coordinates import scale_boxes
from querypose.modeling.sparse.box_stage import BoxDecoderStage
from querypose.modeling.sparse.keypoint_stage import KeypointDecoderStage, KeypointStageOutput
from querypose.modeling.sparse.proposals import initial_proposals
from querypose.modeling.sparse.query_rows import flat_rows, positions_among
from querypose.modeling.sparse.roi_pooling import PyramidPooler, build_pooler, pool, to_rois
from querypose.modeling.sparse.stage_state import StageState
from querypose.skeleton import Skeleton


class QueryPoseDecoder(nn.Module):
    """Turns instance queries into boxes, and chosen ones of them into keypoints (paper section 3).

    In the light model nothing flows from keypoints to boxes, so all box stages run first and the
    keypoint stages see the chosen queries alone. In the full model every keypoint stage refines all
    instance queries for the next box stage; only its part-level steps can wait.

    Args:
        box_stages: one per stage.
        keypoint_stages: one per stage.
        box_pooler: pools the RoI features of the box stages.
        keypoint_pooler: pools the RoI features of the keypoint stages.
        box_in_features: names of the feature maps that the box pooler reads.
        keypoint_in_features: names of the feature maps that the keypoint pooler reads.
        num_queries: N.
        dim: width of the instance queries.
        num_parts: P.
        part_dim: width of the part queries.
        feedback: whether keypoint stages refine the instance query (full model).
        proposals: kind of the initial proposal boxes, see :func:`initial_proposals`.
        keypoint_box_scale: enlarges the boxes that the keypoint stages pool from; 1 in the paper.
    """

    @configurable
    def __init__(
        self,
        *,
        box_stages: Sequence[BoxDecoderStage],
        keypoint_stages: Sequence[KeypointDecoderStage],
        box_pooler: PyramidPooler,
        keypoint_pooler: PyramidPooler,
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
        """Reads the keys of the decoder.

        Raises:
            ValueError: the width of a feature map is not that of the decoder, the number of heads
                does not divide a width, or the scale of the keypoint boxes is not positive.
        """
        node = cfg.MODEL.QUERYPOSE
        _check_config(cfg, input_shape)
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
        # Keypoint stages pool from the finest map alone.
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
        """N, the number of learned queries."""
        return self.queries.num_embeddings

    def forward(
        self,
        features: dict[str, Tensor],
        image_sizes: Tensor | Sequence[tuple[int, int]],
        extra_boxes: Tensor | None = None,
    ) -> list[StageState]:
        """Runs all box stages, and in the full model the feedback of the keypoint stages.

        Args:
            features: float32 maps by name, (B, dim, H / stride, W / stride).
            image_sizes: (height, width) of each unpadded image, (B, 2).
            extra_boxes: initial boxes of D additional queries, (B, D, 4) xyxy in pixels. They do
                not change the outputs of the learned queries.

        Returns:
            One state per stage, of the N learned queries and then the D additional ones.
        """
        boxes, queries, attention_mask = self._initial_queries(image_sizes, extra_boxes)
        last = len(self.box_stages) - 1
        states = []
        for index, (box_stage, keypoint_stage) in enumerate(
            zip(self.box_stages, self.keypoint_stages, strict=True)
        ):
            rois = to_rois(boxes)
            roi_features = pool(self.box_pooler, features, self.box_in_features, rois)
            logits, refined, queries = box_stage(roi_features, boxes, queries, attention_mask)
            boxes = refined.detach()
            keypoint_boxes = scale_boxes(boxes, self.keypoint_box_scale)
            keypoint_features = None
            # No box stage follows the last one, so its feedback can wait.
            if self.feedback and index < last:
                pooled = self._pool_keypoints(features, to_rois(keypoint_boxes))
                keypoint_features, rows = keypoint_stage.refine(pooled, queries.flatten(0, 1))
                queries = rows.view_as(queries)
            states.append(StageState(logits, refined, keypoint_boxes, queries, keypoint_features))
        return states

    def _initial_queries(
        self, image_sizes: Tensor | Sequence[tuple[int, int]], extra_boxes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Boxes, instance queries and the attention mask of the first box stage."""
        relative = box_convert(self.proposal_boxes.weight, "cxcywh", "xyxy")
        sizes = torch.as_tensor(image_sizes, dtype=relative.dtype, device=relative.device)
        boxes = relative * sizes.flip(-1).repeat(1, 2)[:, None]
        queries = self.queries.weight.expand(sizes.shape[0], -1, -1)
        if extra_boxes is None:
            return boxes, queries, None
        boxes = torch.cat([boxes, extra_boxes], dim=1)
        # An additional query starts as a random learned one. Drawn on the CPU so that every device
        # draws the same.
        drawn = torch.randint(self.num_queries, extra_boxes.shape[:2]).to(boxes.device)
        queries = torch.cat([queries, self.queries.weight[drawn]], dim=1)
        # Every query attends to the learned ones and to itself.
        mask = ~torch.eye(boxes.shape[1], dtype=torch.bool, device=boxes.device)
        mask[:, : self.num_queries] = False
        return boxes, queries, mask

    def split(self, states: Sequence[StageState]) -> tuple[list[StageState], list[StageState]]:
        """Separates the states of learned queries from those of additional ones."""
        learned = [state.select(slice(self.num_queries)) for state in states]
        return learned, [state.select(slice(self.num_queries, None)) for state in states]

    def decode_keypoints(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        query_indices: Sequence[Tensor | Sequence[Tensor]],
    ) -> list[KeypointStageOutput]:
        """Decodes the keypoints of chosen queries.

        Args:
            features: as in :meth:`forward`.
            states: from :meth:`forward`.
            query_indices: per stage, the chosen queries, see
                :func:`~querypose.modeling.sparse.query_rows.flat_rows`. Every stage must have those
                of the next one.

        Returns:
            Per stage, the output of R = sum of R_i instances in the order of the images. With R = 0
            the output is empty, and its gradient is zero for every parameter of the stage.
        """
        outputs: list[KeypointStageOutput] = []
        previous_indices, previous_rows = None, None
        for stage, state, indices in zip(self.keypoint_stages, states, query_indices, strict=True):
            rows = flat_rows(indices, state.boxes.shape[1])
            if rows.shape[0] == 0:
                outputs.append(self._empty_output(stage))
                continue
            if previous_rows is None:
                part_queries = self.part_queries.weight.expand(rows.shape[0], -1, -1)
            elif indices is not previous_indices:
                part_queries = part_queries[positions_among(previous_rows, rows)]
            queries = state.queries.flatten(0, 1)[rows]
            if state.keypoint_features is None:
                rois = to_rois(state.keypoint_boxes)[rows]
                stage_features, queries = stage.refine(
                    self._pool_keypoints(features, rois), queries
                )
            else:
                stage_features = state.keypoint_features[rows]
            outputs.append(stage(stage_features, queries, part_queries))
            part_queries = outputs[-1].part_queries
            previous_indices, previous_rows = indices, rows
        return outputs

    def _empty_output(self, stage: KeypointDecoderStage) -> KeypointStageOutput:
        """The output for no instance, with a zero gradient for every parameter of the stage.

        Batch norm has no statistics of an empty batch, and DDP waits for every gradient.
        """
        parameters = [*stage.parameters(), self.part_queries.weight]
        zero = sum(parameter.sum() for parameter in parameters) * 0
        points = zero.expand(0, len(stage.heads.coordinate_bias), 2)
        part_queries = zero.expand(0, *self.part_queries.weight.shape)
        attention = zero.expand(0, self.part_queries.num_embeddings, 1, 1)
        return KeypointStageOutput(points, points, part_queries, attention)

    def _pool_keypoints(self, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        return pool(self.keypoint_pooler, features, self.keypoint_in_features, rois)


def _check_config(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
    node = cfg.MODEL.QUERYPOSE
    if node.KEYPOINT_BOX_SCALE <= 0:
        raise ValueError(
            f"MODEL.QUERYPOSE.KEYPOINT_BOX_SCALE must be positive, not {node.KEYPOINT_BOX_SCALE}."
        )
    for name in cfg.MODEL.ROI_HEADS.IN_FEATURES:
        if name not in input_shape:
            raise ValueError(
                f"The backbone has no feature map {name!r}; choose MODEL.ROI_HEADS.IN_FEATURES "
                f"from {sorted(input_shape)}."
            )
        if input_shape[name].channels != node.HIDDEN_DIM:
            raise ValueError(
                f"The backbone's {name} has {input_shape[name].channels} channels, but "
                f"MODEL.QUERYPOSE.HIDDEN_DIM is {node.HIDDEN_DIM}; "
                "set MODEL.FPN.OUT_CHANNELS to the latter."
            )
    for key in ("HIDDEN_DIM", "PART_DIM"):
        if node[key] % node.NUM_ATTENTION_HEADS:
            raise ValueError(
                f"MODEL.QUERYPOSE.{key} ({node[key]}) must be a multiple of "
                f"MODEL.QUERYPOSE.NUM_ATTENTION_HEADS ({node.NUM_ATTENTION_HEADS})."
            )
