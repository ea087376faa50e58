"""CIR-QEM: dense pose regression whose one score is the quality of the pose.

Xiao et al., *Learning Quality-Aware Representation for Multi-Person Pose Regression*, AAAI 2022.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from querypose.checkpoint import convert_on_load
from querypose.modeling.dense.cells import cells_to_pixels, map_size, only_map, pixels_to_cells
from querypose.modeling.dense.flip import mirror_images
from querypose.modeling.dense.instances import poses_to_batch, poses_to_instances
from querypose.modeling.dense.persons import labeled_persons, padded_ignore_masks
from querypose.modeling.dense.quality_criterion import QualityCriterion
from querypose.modeling.dense.quality_head import QualityHead, QualityMaps
from querypose.modeling.dense.quality_readout import QualityReadout, ScoredPoses, merge_scales
from querypose.modeling.dense.quality_targets import QualityTargetBuilder, QualityTargets
from querypose.modeling.pose_model import (
    Inputs,
    PeopleBatch,
    PoseModel,
    skeleton_from_config,
)
from querypose.skeleton import Skeleton

_SKELETON_DEPENDENT = re.compile(
    r"head\.(keypoint_maps|keypoint_decoder|score_branch\.(free_points|reduce))\..+"
)


@META_ARCH_REGISTRY.register()
class QualityPose(PoseModel):
    """Every cell of one map stands for a pose and its score.

    Args:
        backbone: gives one map of stride 4.
        head: keypoints and scores of every cell.
        criterion: losses.
        skeleton: the keypoints that the model predicts.
        pixel_mean: per channel, in 0..255.
        pixel_std: per channel.
        target_builder: makes training targets of labeled persons.
        max_peaks: poses that an image returns at most, before suppression and at one scale.
        nms: whether poses that resemble a better one are dropped.
        flip_test: average the outputs for an image and its mirror image.
        test_scales: scales of the image in testing; one of them is 1.

    Raises:
        ValueError: 1 is not among the scales.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: QualityHead,
        criterion: QualityCriterion,
        skeleton: Skeleton,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        target_builder: QualityTargetBuilder,
        max_peaks: int,
        nms: bool,
        flip_test: bool,
        test_scales: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__(
            backbone=backbone,
            skeleton=skeleton,
            num_classes=1,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        if 1 not in test_scales or min(test_scales) <= 0:
            raise ValueError(
                "MODEL.QUALITY_POSE.TEST_SCALES are positive and 1 is one of them, unlike "
                f"{tuple(test_scales)}."
            )
        self.head = head
        self.criterion = criterion
        self.target_builder = target_builder
        self.readout = QualityReadout(skeleton=skeleton, max_peaks=max_peaks, nms=nms)
        self.flip_test = flip_test
        self.test_scales = tuple(test_scales)
        # Detectron2's own predictor and checkpointer may load a backbone's file, too.
        convert_on_load(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.QUALITY_POSE``; see :mod:`querypose.config`."""
        node = cfg.MODEL.QUALITY_POSE
        skeleton = skeleton_from_config(cfg)
        backbone = build_backbone(cfg)
        shape = only_map(backbone)
        head = QualityHead(
            in_channels=shape.channels,
            num_keypoints=skeleton.num_keypoints,
            keypoint_channels=node.KEYPOINT_CHANNELS,
            instance_channels=node.INSTANCE_CHANNELS,
            score_channels=node.SCORE_CHANNELS,
            kqe=node.KQE,
            num_semantic_points=node.NUM_SEMANTIC_POINTS,
            aggregate=node.AGGREGATE,
            pqe=node.PQE,
            pose_query=node.POSE_QUERY,
            quality_branch=node.QUALITY_BRANCH,
        )
        criterion = QualityCriterion(
            sigmas=skeleton.sigmas,
            instance_label=node.INSTANCE_LABEL,
            quality_branch=node.QUALITY_BRANCH,
            cir_reduction=node.LOSS.CIR_REDUCTION,
            scale_norm=node.LOSS.SCALE_NORM,
        )
        return {
            "backbone": backbone,
            "head": head,
            "criterion": criterion,
            "skeleton": skeleton,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "target_builder": QualityTargetBuilder(min_area=node.MIN_AREA),
            "max_peaks": node.MAX_PEAKS,
            "nms": node.NMS.ENABLED,
            "flip_test": node.FLIP_TEST,
            "test_scales": node.TEST_SCALES,
        }

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Computes losses in training, else finds persons; see the base class.

        In training, ``instances`` also have ``gt_areas``, and an input may have an ``ignore_mask``,
        see :class:`querypose.data.PoseAffineMapper`. In inference an input may ask by
        ``return_maps`` for more beside its ``instances``: ``maps`` with ``score``, (h, w), whose
        peaks become persons, and the persons' poses as ``proposals``.
        """
        if self.training:
            return self._losses(batched_inputs)
        found, scores = self._detect_at_all_scales(batched_inputs)
        return [
            self._output(given, poses, score)
            for given, poses, score in zip(batched_inputs, found, scores, strict=True)
        ]

    def detect_at_most(self, images: Tensor, image_sizes: Tensor, max_people: int) -> PeopleBatch:
        """Detects the people that :meth:`forward` detects, the best ``max_people`` of them.

        As many cells are decoded as there can be peaks, even where there are fewer. See
        :meth:`PoseModel.detect_at_most`.
        """
        if self.test_scales != (1,):
            raise ValueError(
                "MODEL.QUALITY_POSE.TEST_SCALES: a graph looks at an image in one size; leave "
                "[1.0]."
            )
        maps = self._maps(images)
        mirrored = self._maps(mirror_images(images)) if self.flip_test else None
        readers = (
            None if view is None else partial(self.head.poses_at, view) for view in (maps, mirrored)
        )
        found = self.readout.best_at_most(maps.ranking(mirrored), *readers)
        return poses_to_batch(_with_scores(found), found.scores, max_people)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules in which time is spent; see the base class."""
        return {
            "backbone": [self.backbone],
            "keypoint queries": [self.head.keypoint_maps],
            "scores": [self.head.score_branch],
            "matching": [self.target_builder],
            "keypoints": [self.head.keypoint_decoder],
        }

    def is_skeleton_dependent(self, tensor_name: str) -> bool:
        """Whether a tensor of the state dict starts afresh where the skeleton is another."""
        if self.head.pose_query is None and tensor_name.startswith("head.score_branch."):
            return False
        return bool(_SKELETON_DEPENDENT.fullmatch(tensor_name))

    def loss_normalizers(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        """Counts of owned cells and of coordinates; see the base class."""
        sizes = [tuple(given["image"].shape[-2:]) for given in batched_inputs]
        maps = [map_size(size) for size in sizes]
        largest = max(height for height, _ in maps), max(width for _, width in maps)
        return self.criterion.normalizers(self._targets(batched_inputs, largest), sizes)

    def fix_num_people(self, count: int) -> None:
        """Poses of ``count`` cells become persons, at every scale; see the base class."""
        self.readout.fix_count(count)

    def _losses(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        images = self.preprocess_images(batched_inputs)
        maps = self._maps(images.tensor)
        size = tuple(maps.scores.shape[-2:])
        targets = self._targets(batched_inputs, size)
        return self.criterion(
            maps,
            self.head.poses_at(maps, targets.cells),
            targets,
            padded_ignore_masks(batched_inputs, size, self.device),
            self.criterion.normalizers(targets, images.image_sizes),
        )

    def _targets(self, batched_inputs: Inputs, size: tuple[int, int]) -> QualityTargets:
        persons = labeled_persons(
            batched_inputs,
            num_keypoints=self.skeleton.num_keypoints,
            area_field="gt_areas",
            device=self.device,
        )
        return self.target_builder(persons, size)

    def _maps(self, images: Tensor) -> QualityMaps:
        (features,) = self.backbone(images).values()
        return self.head(features)

    def _detect_at_all_scales(
        self, batched_inputs: Inputs
    ) -> tuple[list[ScoredPoses], list[Tensor]]:
        """Per image, poses in cells of scale 1, and the score map of scale 1."""
        found = []
        for scale in self.test_scales:
            images = self.preprocess_images([_resized(given, scale) for given in batched_inputs])
            poses, scores = self._detect(images)
            found.append(
                [
                    _in_frame_of(given["image"], size, of_image)
                    for given, size, of_image in zip(
                        batched_inputs, images.image_sizes, poses, strict=True
                    )
                ]
            )
            if scale == 1:
                maps = [
                    score[0, : map_size(size)[0], : map_size(size)[1]]
                    for score, size in zip(scores, images.image_sizes, strict=True)
                ]
        merged = [merge_scales(self.test_scales, of_image) for of_image in zip(*found, strict=True)]
        return [self.readout.select(poses) for poses in merged], maps

    def _detect(self, images: ImageList) -> tuple[list[ScoredPoses], Tensor]:
        """Poses per image, and the score maps (B, 1, H, W)."""
        if not self.flip_test:
            maps = self._maps(images.tensor)
            scores = maps.ranking()
            return self.readout.poses(scores, partial(self.head.poses_at, maps)), scores
        views = torch.cat([images.tensor, mirror_images(images.tensor)])
        maps, mirrored = self._maps(views).halves()
        scores = maps.ranking(mirrored)
        readers = (partial(self.head.poses_at, view) for view in (maps, mirrored))
        return self.readout.poses(scores, *readers), scores

    def _output(self, given: dict[str, Any], found: ScoredPoses, scores: Tensor) -> dict[str, Any]:
        output = {"instances": poses_to_instances(_with_scores(found), found.scores, given)}
        if given.get("return_maps"):
            output["maps"] = {"score": scores}
            output["proposals"] = output["instances"].pred_keypoints[..., :2]
            output["proposal_persons"] = torch.arange(len(output["instances"]))
        return output


def _with_scores(found: ScoredPoses) -> Tensor:
    """Keypoints (..., n, K, 3); none has a score of its own."""
    scores = found.scores[..., None, None].expand(*found.places.shape[:-1], 1)
    return torch.cat([found.places, scores], dim=-1)


def _resized(given: dict[str, Any], scale: float) -> dict[str, Any]:
    if scale == 1:
        return given
    image = given["image"].float()
    size = [max(1, round(length * scale)) for length in image.shape[-2:]]
    resized = F.interpolate(image[None], size=size, mode="bilinear", antialias=scale < 1)
    return {"image": resized[0]}


def _in_frame_of(image: Tensor, size: tuple[int, int], found: ScoredPoses) -> ScoredPoses:
    """Moves poses from an image of another size, (height, width), to this one."""
    (height, width), (from_height, from_width) = image.shape[-2:], size
    factors = found.places.new_tensor([width / from_width, height / from_height])
    return found._replace(places=pixels_to_cells(cells_to_pixels(found.places) * factors))
