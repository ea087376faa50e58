"""The QueryPose meta-architecture: images in, losses or people out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from querypose.checkpoint import convert_on_load
from querypose.modeling.heatmap import HeatmapHead
from querypose.modeling.pose_model import (
    Inputs,
    PoseModel,
    rescale_instances,
    skeleton_from_config,
    wanted_size,
)
from querypose.modeling.sparse.box_stage import BoxStageOutput
from querypose.modeling.sparse.criterion import QueryPoseCriterion
from querypose.modeling.sparse.decoder import QueryPoseDecoder, StageState
from querypose.modeling.sparse.denoising import BoxDenoiser, NoisedPeople
from querypose.modeling.sparse.detections import detect_people
from querypose.modeling.sparse.matcher import HungarianMatcher
from querypose.modeling.sparse.readout import DecodedPeople, KeypointReadout
from querypose.modeling.targets import PersonTargets
from querypose.skeleton import Skeleton

# Their shapes follow from the keypoints and parts of a skeleton.
_SKELETON_DEPENDENT = re.compile(
    r"decoder\.part_queries\.weight"
    r"|decoder\.keypoint_stages\.\d+\.(heads\..*"
    r"|part_embedding\.(attention_conv|query_projection)\..*)"
    r"|heatmap_head\.layers\.2\..*"
)
# Class logits of the people of a model without training, and of all other queries.
_PERSON_LOGIT, _OTHER_LOGIT = 3.0, -6.0


@META_ARCH_REGISTRY.register()
class QueryPose(PoseModel):
    """Sparse multi-person pose regression (Xiao et al., NeurIPS 2022).

    Args:
        backbone: gives the feature maps that the decoder pools from.
        decoder: box and keypoint stages.
        criterion: losses and their matcher.
        readout: makes people of what the keypoint stages say.
        skeleton: the keypoints that the model predicts.
        num_classes: classes of people.
        pixel_mean: per channel, in 0..255.
        pixel_std: per channel.
        max_detections: people that an image returns at most.
        heatmap_head: auxiliary loss on ``heatmap_feature``, or None.
        heatmap_feature: name of the feature map for the auxiliary loss.
        denoiser: draws additional queries in training, or None.
    """

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
        self.max_detections = max_detections
        # Detectron2's own predictor and checkpointer may load a released or backbone's file, too.
        self.register_load_state_dict_pre_hook(convert_on_load)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.QUERYPOSE`` and what Detectron2 has for any model."""
        node = cfg.MODEL.QUERYPOSE
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
        return {
            "backbone": backbone,
            "decoder": QueryPoseDecoder(cfg, shapes, skeleton),
            "criterion": _criterion(node, skeleton),
            "readout": KeypointReadout(cfg, skeleton),
            "skeleton": skeleton,
            "num_classes": node.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
            "heatmap_head": heatmap_head,
            "heatmap_feature": feature,
            "denoiser": denoiser,
        }

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Computes losses in training, else finds people; see :meth:`PoseModel.forward`.

        The losses are those of :class:`QueryPoseCriterion`. Boxes are clipped to the image. The
        ``Instances`` also have ``query_indices``, and attention of every stage: ``pred_attention``
        (n, S, P, h, w), whose maps sum to 1, and ``attention_boxes`` (n, S, 4).
        """
        images = self.preprocess_images(batched_inputs)
        features = self._features(images)
        if self.training:
            return self._losses(features, images.image_sizes, self._targets(batched_inputs))
        states = self.decoder(features, images.image_sizes)
        people = self._detect(features, states, images.image_sizes, batched_inputs)
        return [
            {"instances": _in_image(found, wanted_size(given, size))}
            for found, given, size in zip(people, batched_inputs, images.image_sizes, strict=True)
        ]

    def parts(self) -> dict[str, list[nn.Module]]:
        """Backbone, box decoder and keypoint decoder."""
        decoder = self.decoder
        return {
            "backbone": [self.backbone],
            "box decoder": [decoder.box_pooler, *decoder.box_stages],
            "keypoint decoder": [
                decoder.keypoint_pooler,
                *(part for stage in decoder.keypoint_stages for part in stage.parts()),
            ],
        }

    def is_skeleton_dependent(self, tensor_name: str) -> bool:
        """Part queries, part attention and heads."""
        return bool(_SKELETON_DEPENDENT.fullmatch(tensor_name))

    def is_training_aid(self, tensor_name: str) -> bool:
        """The auxiliary heat maps."""
        return tensor_name.startswith("heatmap_head.")

    def loss_normalizers(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        """People, and for the auxiliary heat maps keypoints; see the base class."""
        targets = self._targets(batched_inputs)
        normalizers = dict.fromkeys(self.criterion.weights, self.criterion.num_people(targets))
        if self.heatmap_head is not None:
            normalizers["loss_heatmap"] = self.heatmap_head.num_positive(targets)
        return normalizers

    def fix_num_people(self, count: int) -> None:
        """The first ``count`` queries become people, whose boxes stay; see the base class."""

        def fix(_: nn.Module, inputs: tuple[Any, ...], output: BoxStageOutput) -> BoxStageOutput:
            # Times 0, not dropped: in training the gradient goes its usual way.
            logits = 0 * output.logits + _OTHER_LOGIT
            logits[:, :count] += _PERSON_LOGIT - _OTHER_LOGIT
            return output._replace(logits=logits, boxes=0 * output.boxes + inputs[1])

        for stage in self.decoder.box_stages:
            stage.register_forward_hook(fix)
        self.max_detections = count

    def _features(self, images: ImageList) -> dict[str, Tensor]:
        # RoIAlign casts boxes to the features' type: half precision would move them. It also wants
        # channels first, on a CPU last, and would lay the maps out anew at every stage.
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        features = self.backbone(images.tensor)
        return {
            name: value.float().contiguous(memory_format=layout) for name, value in features.items()
        }

    def _targets(self, batched_inputs: Sequence[dict[str, Any]]) -> list[PersonTargets]:
        return [
            PersonTargets.from_instances(
                given["instances"],
                num_keypoints=self.skeleton.num_keypoints,
                num_classes=self.num_classes,
                device=self.device,
            )
            for given in batched_inputs
        ]

    def _losses(
        self,
        features: dict[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        heatmap_losses = {}
        if self.heatmap_head is not None:
            # Before the matching, which may fail in one process: the others would wait for it.
            heatmap_losses = self.heatmap_head(features[self.heatmap_feature], targets)
        noised = self.denoiser(targets) if self.denoiser else None
        states = self.decoder(features, image_sizes, noised.boxes if noised else None)
        learned, extra = self.decoder.split(states)
        losses = self._matched_losses(features, learned, targets)
        if noised is not None:
            losses.update(self._denoising_losses(features, extra, noised, targets))
        return losses | heatmap_losses

    def _matched_losses(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        matches = self.criterion.match(states, targets)
        query_indices = self._queries_to_train(matches, len(targets))
        keypoints = self.decoder.decode_keypoints(features, states, query_indices)
        return self.criterion(states, keypoints, query_indices, matches, targets)

    def _denoising_losses(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        noised: NoisedPeople,
        targets: Sequence[PersonTargets],
    ) -> dict[str, Tensor]:
        matches = [
            (torch.arange(len(people), device=people.device), people) for people in noised.people
        ]
        query_indices = [[queries for queries, _ in matches]] * len(states)
        keypoints = self.decoder.decode_keypoints(features, states, query_indices)
        every_stage = [matches] * len(states)
        return self.criterion.denoising(states, keypoints, query_indices, every_stage, targets)

    def _queries_to_train(
        self, matches: Sequence[Sequence[tuple[Tensor, Tensor]]], num_images: int
    ) -> list[list[Tensor]]:
        """All queries in the full model; in the light one those that this or a later stage matched.

        A stage hands its part queries on, so it decodes what the stages after it will need.
        """
        if self.decoder.feedback:
            every = torch.arange(self.decoder.num_queries, device=self.device)
            return [[every] * num_images] * len(matches)
        return [
            [
                torch.cat([stage[image][0] for stage in matches[index:]]).unique()
                for image in range(num_images)
            ]
            for index in range(len(matches))
        ]

    def _detect(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        image_sizes: Sequence[tuple[int, int]],
        batched_inputs: Inputs,
    ) -> list[Instances]:
        with_attention = any(given.get("return_attention") for given in batched_inputs)

        def decode(query_indices: Sequence[Tensor]) -> DecodedPeople:
            every_stage = [query_indices] * len(states)
            outputs = self.decoder.decode_keypoints(features, states, every_stage)
            return self.readout(outputs, states, query_indices, with_attention=with_attention)

        return detect_people(
            states[-1].logits,
            states[-1].boxes,
            decode,
            image_sizes,
            max_detections=self.max_detections,
            score_thresholds=[given.get("score_threshold", 0.0) for given in batched_inputs],
        )


def _in_image(people: Instances, size: tuple[int, int]) -> Instances:
    people = rescale_instances(people, size)
    people.pred_boxes.clip(size)
    return people


def _criterion(node: CfgNode, skeleton: Skeleton) -> QueryPoseCriterion:
    matcher = HungarianMatcher(
        class_cost=node.CLASS_WEIGHT, l1_cost=node.L1_WEIGHT, giou_cost=node.GIOU_WEIGHT
    )
    return QueryPoseCriterion(
        matcher=matcher,
        class_weight=node.CLASS_WEIGHT,
        l1_weight=node.L1_WEIGHT,
        giou_weight=node.GIOU_WEIGHT,
        keypoint_weight=node.KEYPOINT_WEIGHT,
        attention_weight=node.ATTENTION_WEIGHT,
        part_of_keypoint=skeleton.part_of_keypoint,
    )
