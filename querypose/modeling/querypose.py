"""The QueryPose meta-architecture: pictures in, losses or people out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from querypose.checkpoint import convert_on_load
from querypose.modeling.criterion import QueryPoseCriterion
from querypose.modeling.decoder import QueryPoseDecoder, StageState
from querypose.modeling.denoising import BoxDenoiser, NoisedPeople
from querypose.modeling.detections import detect_people
from querypose.modeling.heatmap import HeatmapHead
from querypose.modeling.keypoint_readout import DecodedPeople, KeypointReadout
from querypose.modeling.matcher import HungarianMatcher
from querypose.modeling.targets import PersonTargets
from querypose.skeleton import Skeleton


@META_ARCH_REGISTRY.register()
class QueryPose(nn.Module):
    """Sparse multi-person pose regression (Xiao et al., NeurIPS 2022).

    Args:
        backbone: gives the feature maps that the decoder pools from.
        decoder: box and keypoint stages.
        criterion: losses and their matcher.
        readout: makes people of what the keypoint stages say.
        skeleton: what a person looks like.
        num_classes: classes of people.
        pixel_mean: per channel, in the range 0..255.
        pixel_std: per channel.
        max_detections: people that a picture returns at most.
        class_score_thresh: queries below it are not returned.
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
        class_score_thresh: float,
        heatmap_head: HeatmapHead | None = None,
        heatmap_feature: str = "p2",
        denoiser: BoxDenoiser | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.criterion = criterion
        self.readout = readout
        self.heatmap_head = heatmap_head
        self.heatmap_feature = heatmap_feature
        self.denoiser = denoiser
        self.skeleton = skeleton
        self.num_classes = num_classes
        self.max_detections = max_detections
        self.class_score_thresh = class_score_thresh
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        # Detectron2's own predictor and checkpointer may load a released or backbone's file, too.
        self.register_load_state_dict_pre_hook(convert_on_load)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads the model's keys; see :mod:`querypose.config`."""
        node = cfg.MODEL.QUERYPOSE
        skeleton = skeleton_from_config(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        feature = node.KEYPOINT_IN_FEATURES[0]
        heatmap_head = None
        if node.AUX_HEATMAP.ENABLED:
            heatmap_head = HeatmapHead(
                in_channels=shapes[feature].channels,
                num_keypoints=skeleton.num_keypoints,
                stride=shapes[feature].stride,
                weight=node.AUX_HEATMAP.WEIGHT,
                prior_prob=node.PRIOR_PROB,
            )
        denoiser = None
        if node.DENOISING.NUM_QUERIES > 0:
            denoiser = BoxDenoiser(
                num_queries=node.DENOISING.NUM_QUERIES, noise=node.DENOISING.BOX_NOISE
            )
        return {
            "backbone": backbone,
            "decoder": QueryPoseDecoder(cfg, shapes, skeleton),
            "criterion": _criterion(node, skeleton),
            "readout": KeypointReadout(cfg, skeleton),
            "skeleton": skeleton,
            "num_classes": node.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "max_detections": node.MAX_DETECTIONS,
            "class_score_thresh": node.CLASS_SCORE_THRESH,
            "heatmap_head": heatmap_head,
            "heatmap_feature": feature,
            "denoiser": denoiser,
        }

    @property
    def device(self) -> torch.device:
        """Where the model's tensors live."""
        return self.pixel_mean.device

    def forward(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Trains or predicts, by ``self.training``.

        Args:
            batched_inputs: per picture a dict with ``image``, (3, H, W) in ``INPUT.FORMAT`` order
                and the range 0..255, and:

                * in training ``instances`` with ``gt_boxes``, ``gt_classes``, ``gt_keypoints``;
                * in inference, optionally, ``height`` and ``width`` of the wanted output.

        Returns:
            In training the weighted losses, see :class:`QueryPoseCriterion`. In inference per
            picture ``{"instances": Instances}``, best first, in pixels of the wanted output, with
            ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_keypoints`` (n, K, 3: x, y,
            score).
        """
        images = self._preprocess(batched_inputs)
        features = self._features(images)
        if self.training:
            return self._losses(features, images.image_sizes, self._targets(batched_inputs))
        states = self.decoder(features, images.image_sizes)
        people = self._detect(features, states, images.image_sizes)
        return [
            {"instances": detector_postprocess(found, *_output_size(given, size))}
            for found, given, size in zip(people, batched_inputs, images.image_sizes, strict=True)
        ]

    def _preprocess(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageList:
        images = [
            (given["image"].to(self.device) - self.pixel_mean) / self.pixel_std
            for given in batched_inputs
        ]
        return ImageList.from_tensors(
            images,
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

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
        self, matches: Sequence[Sequence[tuple[Tensor, Tensor]]], num_pictures: int
    ) -> list[list[Tensor]]:
        """All queries in the full model; in the light one those that this or a later stage matched.

        A stage hands its part queries on, so it decodes what the stages after it will need.
        """
        if self.decoder.feedback:
            every = torch.arange(self.decoder.num_queries, device=self.device)
            return [[every] * num_pictures] * len(matches)
        return [
            [
                torch.cat([stage[picture][0] for stage in matches[index:]]).unique()
                for picture in range(num_pictures)
            ]
            for index in range(len(matches))
        ]

    def _detect(
        self,
        features: dict[str, Tensor],
        states: Sequence[StageState],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        def decode(query_indices: Sequence[Tensor]) -> DecodedPeople:
            every_stage = [query_indices] * len(states)
            outputs = self.decoder.decode_keypoints(features, states, every_stage)
            return self.readout(outputs, states, query_indices)

        return detect_people(
            states[-1].logits,
            states[-1].boxes,
            decode,
            image_sizes,
            num_keypoints=self.skeleton.num_keypoints,
            max_detections=self.max_detections,
            class_score_thresh=self.class_score_thresh,
        )


def skeleton_from_config(cfg: CfgNode) -> Skeleton:
    """The skeleton that a config's model predicts.

    It comes from ``MODEL.QUERYPOSE.SKELETON``, else from the metadata of the first training
    dataset, else of the first test dataset; ``MODEL.QUERYPOSE.PART_PER_KEYPOINT`` splits its parts.

    Raises:
        ValueError: none of them declares keypoints.
    """
    skeleton = _declared_skeleton(cfg)
    if cfg.MODEL.QUERYPOSE.PART_PER_KEYPOINT:
        return dataclasses.replace(skeleton, parts=())
    return skeleton


def _declared_skeleton(cfg: CfgNode) -> Skeleton:
    if cfg.MODEL.QUERYPOSE.SKELETON:
        return Skeleton.from_file(cfg.MODEL.QUERYPOSE.SKELETON)
    datasets = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if not datasets:
        raise ValueError(
            "Name a dataset in DATASETS.TRAIN or a file in MODEL.QUERYPOSE.SKELETON: "
            "the model needs to know its keypoints."
        )
    return Skeleton.from_metadata(MetadataCatalog.get(datasets[0]))


def _criterion(node: CfgNode, skeleton: Skeleton) -> QueryPoseCriterion:
    focal = {"focal_alpha": node.FOCAL_ALPHA, "focal_gamma": node.FOCAL_GAMMA}
    matcher = HungarianMatcher(
        class_cost=node.MATCHER.CLASS_COST,
        l1_cost=node.MATCHER.L1_COST,
        giou_cost=node.MATCHER.GIOU_COST,
        **focal,
    )
    return QueryPoseCriterion(
        matcher=matcher,
        class_weight=node.CLASS_WEIGHT,
        l1_weight=node.L1_WEIGHT,
        giou_weight=node.GIOU_WEIGHT,
        keypoint_weight=node.KEYPOINT_WEIGHT,
        attention_weight=node.ATTENTION_WEIGHT,
        part_of_keypoint=skeleton.part_of_keypoint,
        **focal,
    )


def _output_size(given: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    height, width = image_size
    return given.get("height", height), given.get("width", width)
