"""QueryPose: learned queries become boxes, and boxes become keypoints."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn

from querypose.checkpoint import convert_on_load
from querypose.modeling.heatmap import HeatmapHead
from querypose.modeling.pose_model import (
    Inputs,
    PeopleBatch,
    PoseModel,
    rescale_instances,
    skeleton_from_config,
    wanted_size,
)
from querypose.modeling.sparse.box_stage import BoxStageOutput
from querypose.modeling.sparse.criterion import Matches, QueryPoseCriterion
from querypose.modeling.sparse.decoder import QueryPoseDecoder
from querypose.modeling.sparse.denoising import BoxDenoiser
from querypose.modeling.sparse.detections import detect_at_most, detect_people
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.sparse.readout import DecodedPeople, KeypointReadout
from querypose.modeling.sparse.stage_state import StageState
from querypose.modeling.targets import PersonTargets
from querypose.skeleton import Skeleton

# Tensors whose shape follows from the keypoints and parts of the skeleton.
_SKELETON_DEPENDENT = re.compile(
    r"decoder\.part_queries\.weight"
    r"|decoder\.keypoint_stages\.\d+\.(heads\..*"
    r"|part_embedding\.(attention_conv|query_projection)\..*)"
    r"|heatmap_head\.layers\.2\..*"
)
# Class logits of `fix_num_people`, for the queries that become people and for all others.
_PERSON_LOGIT, _OTHER_LOGIT = 3.0, -6.0


@META_ARCH_REGISTRY.register()
class QueryPose(PoseModel):
    """Sparse multi-person pose regression (Xiao et al., NeurIPS 2022).

    Args:
        backbone: computes the feature maps that the decoder pools from.
        decoder: box and keypoint stages.
        criterion: losses and their matcher.
        readout: turns the outputs of the keypoint stages into keypoints and scores.
        skeleton: the keypoints that the model predicts.
        num_classes: number of person classes.
        pixel_mean: per channel, in 0..255.
        pixel_std: per channel.
        max_detections: maximum number of people per image.
        heatmap_head: auxiliary loss on ``heatmap_feature``, or None.
        heatmap_feature: name of the feature map for the auxiliary loss.
        denoiser: adds noised boxes of people as queries in training, or None.
    """

    num_classes_key = "MODEL.QUERYPOSE.NUM_CLASSES"
    num_queries_key = "MODEL.QUERYPOSE.NUM_QUERIES"

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        decoder: QueryPoseDecoder,
        criterion: QueryPoseCriterion,
        readout: KeypointReadout,
        skeleton: Skeleton,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        max_detections: int,
        heatmap_head: HeatmapHead | None = None,
        heatmap_feature: str = "p2",
        denoiser: BoxDenoiser | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            skeleton=skeleton,
            num_classes=num_classes,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        self.decoder = decoder
        self.criterion = criterion
        self.readout = readout
        self.heatmap_head = heatmap_head
        self.heatmap_feature = heatmap_feature
        self.denoiser = denoiser
        if max_detections < 1:
            raise ValueError(
                "max_detections (TEST.DETECTIONS_PER_IMAGE) is at least 1, or negative for every "
                f"query, not {max_detections}."
            )
        self.max_detections = max_detections
        # So that Detectron2's own checkpointer also reads released files and backbone files.
        convert_on_load(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.QUERYPOSE`` and the keys that Detectron2 has for every model."""
        node = cfg.MODEL.QUERYPOSE
        # As in Detectron2, a negative number stands for no limit.
        limit = cfg.TEST.DETECTIONS_PER_IMAGE
        skeleton = skeleton_from_config(cfg)
        if node.PART_PER_KEYPOINT:
            skeleton = dataclasses.replace(skeleton, parts=())
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        feature = cfg.MODEL.ROI_HEADS.IN_FEATURES[0]
        heatmap_head = None
        if node.AUX_HEATMAP.ENABLED:
            heatmap_head = HeatmapHead(
                in_channels=shapes[feature].channels,
                num_keypoints=skeleton.num_keypoints,
                stride=shapes[feature].stride,
            )
        denoiser = None
        if node.DENOISING.NUM_QUERIES > 0:
            denoiser = BoxDenoiser(num_queries=node.DENOISING.NUM_QUERIES)
        decoder = QueryPoseDecoder(cfg, shapes, skeleton)
        matcher = HungarianMatcher(
            class_cost=node.CLASS_WEIGHT, l1_cost=node.L1_WEIGHT, giou_cost=node.GIOU_WEIGHT
        )
        criterion = QueryPoseCriterion(
            matcher=matcher,
            class_weight=node.CLASS_WEIGHT,
            l1_weight=node.L1_WEIGHT,
            giou_weight=node.GIOU_WEIGHT,
            keypoint_weight=node.KEYPOINT_WEIGHT,
            attention_weight=node.ATTENTION_WEIGHT,
            part_of_keypoint=skeleton.part_of_keypoint,
        )
        return {
            "backbone": backbone,
            "decoder": decoder,
            "criterion": criterion,
            "readout": KeypointReadout(cfg, skeleton),
            "skeleton": skeleton,
            "num_classes": node.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "max_detections": node.NUM_QUERIES if limit < 0 else limit,
            "heatmap_head": heatmap_head,
            "heatmap_feature": feature,
            "denoiser": denoiser,
        }

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Computes losses in training, otherwise detects people; see :meth:`PoseModel.forward`.

        The losses are those of :class:`QueryPoseCriterion`. Boxes are clipped to the image. The
        ``Instances`` also have ``query_indices``, and the attention of every stage:
        ``pred_attention`` (n, S, P, h, w), whose maps sum to 1, and ``attention_boxes`` (n, S, 4).
        """
        images = self.preprocess_images(batched_inputs)
        features = self._features(images.tensor)
        if self.training:
            return self._losses(features, images.image_sizes, self._targets(batched_inputs))
        return self._detect(features, images.image_sizes, batched_inputs)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        # RoIAlign casts boxes to the type of the features: half precision would move the boxes.
        # Maps that already have the layout that RoIAlign reads are not copied at every stage.
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        features = self.backbone(images)
        return {
            name: value.float().contiguous(memory_format=layout) for name, value in features.items()
        }

    def _targets(self, batched_inputs: Inputs) -> list[PersonTargets]:
        return [
            PersonTargets.from_instances(
                image_input["instances"],
                num_keypoints=self.skeleton.num_keypoints,
                num_classes=self.num_classes,
                device=self.device,
                source=image_input.get("file_name", "An image"),
            )
            for image_input in batched_inputs
        ]

    def _losses(
        self,
        features: dict[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        heatmap_losses = {}
        if self.heatmap_head is not None:
            # Collective, hence before the matching, which may fail on one rank alone.
            heatmap_losses = self.heatmap_head(features[self.heatmap_feature], targets)
        noised = self.denoiser(targets) if self.denoiser else None
        states = self.decoder(features, image_sizes, noised.boxes if noised else None)
        learned, extra = self.decoder.split(states)

        matches = self.criterion.match(learned, targets)
        query_indices = self._queries_to_decode(matches)
        keypoints = self.decoder.decode_keypoints(features, learned, query_indices)
        losses = self.criterion(learned, keypoints, query_indices, matches, targets)

        if noised is not None:
            matches = [noised.matches] * len(extra)
            query_indices = [[queries for queries, _ in noised.matches]] * len(extra)
            keypoints = self.decoder.decode_keypoints(features, extra, query_indices)
            losses |= self.criterion.denoising(extra, keypoints, query_indices, matches, targets)
        return losses | heatmap_losses

    def _queries_to_decode(self, matches: Sequence[Matches]) -> list[list[Tensor]]:
        """Per stage and image, the queries whose keypoints are decoded in training.

        The full model decodes all. The light model decodes those that this stage or a later one
        matched: a later stage needs their part queries.
        """
        if self.decoder.feedback:
            every_query = torch.arange(self.decoder.num_queries, device=self.device)
            return [[every_query] * len(stage_matches) for stage_matches in matches]
        return [
            [
                torch.cat([queries for queries, _ in image_matches]).unique()
                for image_matches in zip(*matches[stage:], strict=True)
            ]
            for stage in range(len(matches))
        ]

    def _detect(
        self,
        features: dict[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        batched_inputs: Inputs,
    ) -> list[dict[str, Any]]:
        states = self.decoder(features, image_sizes)
        with_attention = any(each.get("return_attention") for each in batched_inputs)
        detections = detect_people(
            states[-1].logits,
            states[-1].boxes,
            partial(self._decode, features, states, with_attention=with_attention),
            image_sizes,
            max_detections=self.max_detections,
            score_thresholds=[each.get("score_threshold", 0.0) for each in batched_inputs],
            suppress=self.readout.suppress,
        )
        outputs = []
        for people, image_input in zip(detections, batched_inputs, strict=True):
            people = rescale_instances(people, wanted_size(image_input, people.image_size))
            people.pred_boxes.clip(people.image_size)
            outputs.append({"instances": people})
        return outputs

    def detect_at_most(self, images: Tensor, image_sizes: Tensor, max_people: int) -> PeopleBatch:
        """Detects people among the ``max_people`` queries of the highest class scores.

        Above a score the people are the same as those of :meth:`forward` where no other query has a
        class score above it. See :meth:`PoseModel.detect_at_most`.
        """
        features = self._features(images)
        states = self.decoder(features, image_sizes)
        return detect_at_most(
            states[-1].logits,
            states[-1].boxes,
            partial(self._decode, features, states),
            image_sizes,
            max_people=min(max_people, self.decoder.num_queries),
            suppress=self.readout.suppress,
        )

    def _decode(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        query_indices: Tensor | Sequence[Tensor],
        *,
        with_attention: bool = False,
    ) -> DecodedPeople:
        every_stage = [query_indices] * len(states)
        outputs = self.decoder.decode_keypoints(features, states, every_stage)
        return self.readout(outputs, states, query_indices, with_attention=with_attention)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Backbone, box decoder, matching in training, and keypoint decoder."""
        decoder = self.decoder
        return {
            "backbone": [self.backbone],
            "box decoder": [decoder.box_pooler, *decoder.box_stages],
            "matching": [self.criterion.matcher],
            "keypoint decoder": [
                decoder.keypoint_pooler,
                *(part for stage in decoder.keypoint_stages for part in stage.parts()),
            ],
        }

    def is_skeleton_dependent(self, tensor_name: str) -> bool:
        """True for part queries, part attention and the heads of the keypoints."""
        return bool(_SKELETON_DEPENDENT.fullmatch(tensor_name))

    def is_training_aid(self, tensor_name: str) -> bool:
        """True for the auxiliary heat maps."""
        return tensor_name.startswith("heatmap_head.")

    def loss_normalizers(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        """Counts people, and keypoints for the auxiliary heat maps; see the base class."""
        targets = self._targets(batched_inputs)
        normalizers = dict.fromkeys(self.criterion.weights, self.criterion.num_people(targets))
        if self.heatmap_head is not None:
            normalizers["loss_heatmap"] = self.heatmap_head.num_positive(targets)
        return normalizers

    def fix_num_people(self, count: int) -> None:
        """Makes people of the first ``count`` queries and keeps all boxes; see the base class."""

        def fix(_: nn.Module, inputs: tuple[Any, ...], output: BoxStageOutput) -> BoxStageOutput:
            # Multiplied by 0, not replaced, so that gradients reach every parameter in training.
            logits = 0 * output.logits + _OTHER_LOGIT
            logits[:, :count] += _PERSON_LOGIT - _OTHER_LOGIT
            return output._replace(logits=logits, boxes=0 * output.boxes + inputs[1])

        for stage in self.decoder.box_stages:
            stage.register_forward_hook(fix)
        self.max_detections = count
        self.readout.nms_oks_threshold = 1.0
