"""PINet: every part of a person proposes a pose, a graph refines it, and poses are fused.

Wang, Zhang, Hua, Robust Pose Estimation in Crowded Scenes with Direct Pose-Level Inference,
NeurIPS 2021. Where the paper's supplement and the published code differ, the code is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from torch import Tensor, nn

from querypose.checkpoint import convert_on_load
from querypose.modeling.dense.cells import cells_to_pixels, map_size, only_map
from querypose.modeling.dense.flip import average_maps, mirror_images, mirror_poses
from querypose.modeling.dense.fusion import FusedPoses, PoseFusion, score_keypoints
from querypose.modeling.dense.instances import poses_to_batch, poses_to_instances
from querypose.modeling.dense.part_criterion import PartCriterion
from querypose.modeling.dense.part_head import PartCells, PartHead, PartMaps
from querypose.modeling.dense.part_layout import mirrored_parts, part_layout
from querypose.modeling.dense.part_targets import PartTargetBuilder, PartTargets
from querypose.modeling.dense.peaks import (
    find_peaks,
    fixed_peaks,
    highest_by_size,
    kernel_for_size,
    spread_cells,
)
from querypose.modeling.dense.persons import labeled_persons, padded_ignore_masks
from querypose.modeling.dense.pose_refinement import PoseRefinement
from querypose.modeling.pose_model import (
    Inputs,
    PeopleBatch,
    PoseModel,
    skeleton_from_config,
    wanted_size,
)
from querypose.skeleton import Skeleton


class View(NamedTuple):
    """The network's output for a batch, or for its mirror images.

    Attributes:
        features: (B, C, H, W).
        maps: of the head.
    """

    features: Tensor
    maps: PartMaps


class FoundPersons(NamedTuple):
    """What is found in one image.

    Attributes:
        persons: in cells.
        part_maps: (P, H, W), whose peaks are centers of parts.
        poses: (n, K, 2), in cells, which the persons were combined from.
    """

    persons: FusedPoses
    part_maps: Tensor
    poses: Tensor


@META_ARCH_REGISTRY.register()
class PINet(PoseModel):
    """Pose-level inference (Wang et al., NeurIPS 2021).

    Args:
        backbone: gives one feature map, of stride 4.
        head: predicts keypoint maps, part maps and poses from it.
        refinement: corrects poses, or None.
        part_names: of the parts that the head predicts.
        target_builder: makes training targets of labeled persons.
        skeleton: the keypoints that the model predicts.
        pixel_mean: per channel, in 0..255.
        pixel_std: per channel.
        criterion: computes the losses.
        fusion: combines the poses of each person.
        flip_test: average the outputs for an image and its mirror image.
        max_peaks: poses that one part proposes at most.

    Raises:
        ValueError: the flip test finds no mirror image of a part.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: PartHead,
        refinement: PoseRefinement | None,
        part_names: Sequence[str],
        target_builder: PartTargetBuilder,
        skeleton: Skeleton,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        criterion: PartCriterion,
        fusion: PoseFusion,
        flip_test: bool,
        max_peaks: int,
    ) -> None:
        super().__init__(
            backbone=backbone,
            skeleton=skeleton,
            num_classes=1,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        self.head = head
        self.refinement = refinement
        self.part_names = part_names
        self.target_builder = target_builder
        self.criterion = criterion
        self.fusion = fusion
        self.flip_test = flip_test
        self.part_partners = (
            mirrored_parts(part_names, target_builder.parts, skeleton.flip_indices)
            if flip_test
            else None
        )
        self.max_peaks = max_peaks
        self._fixed_count: int | None = None
        # Detectron2's own predictor and checkpointer may load a released or backbone's file, too.
        convert_on_load(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads ``MODEL.PINET``; see :mod:`querypose.config`."""
        node = cfg.MODEL.PINET
        skeleton = skeleton_from_config(cfg)
        layout = part_layout(skeleton, [skeleton.keypoints] if node.CENTER_ONLY else node.PARTS)
        backbone = build_backbone(cfg)
        shape = only_map(backbone)
        head = PartHead(
            in_channels=shape.channels,
            num_keypoints=skeleton.num_keypoints,
            num_parts=len(layout.parts),
        )
        refinement = None
        if node.REFINEMENT:
            refinement = PoseRefinement(
                channels=shape.channels,
                num_keypoints=skeleton.num_keypoints,
                edges=layout.edges,
                num_layers=node.NUM_REFINEMENT_LAYERS,
                sampler=node.SAMPLER,
            )
        return {
            "backbone": backbone,
            "head": head,
            "refinement": refinement,
            "part_names": layout.names,
            "target_builder": PartTargetBuilder(
                parts=layout.parts,
                center_only=layout.center_only,
                nearest_cells=node.NEAREST_CELLS,
                min_area=node.MIN_BOX_AREA,
            ),
            "skeleton": skeleton,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "criterion": PartCriterion(
                offset_weight=node.OFFSET_WEIGHT, refinement_weight=node.REFINEMENT_WEIGHT
            ),
            "fusion": PoseFusion(skeleton.sigmas, sort_by=node.SORT_BY, fuse=node.FUSION),
            "flip_test": node.FLIP_TEST,
            "max_peaks": node.MAX_PEAKS,
        }

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Computes losses in training, else finds persons; see :meth:`PoseModel.forward`.

        Training also needs ``gt_box_areas`` in the ``instances``, and takes ``ignore_mask``, see
        :class:`querypose.data.PoseAffineMapper`. The losses are ``loss_heatmap``, ``loss_offset``
        and, with a refinement, ``loss_refine``. In inference an input may ask by ``return_maps``
        for more beside its ``instances``: ``maps``, (h, w) of every part's centers by its name;
        ``proposals``, (n, K, 2), the poses that were fused, in the pixels of the instances; and
        ``proposal_persons``, (n,), the place in ``instances`` of the person each went to, which is
        beyond the last where that person is left out.
        """
        images = self.preprocess_images(batched_inputs)
        view = self._look_at(images.tensor)
        if self.training:
            targets = self._targets(batched_inputs, view.features.shape[-2:])
            return self.criterion(view.features, view.maps, self.refinement, targets)
        mirrored = self._look_at(mirror_images(images.tensor)) if self.flip_test else None
        persons = self._find_persons(view, mirrored)
        return [
            self._output(found, given) for found, given in zip(persons, batched_inputs, strict=True)
        ]

    def _look_at(self, images: Tensor) -> View:
        (features,) = self.backbone(images).values()
        return View(features, self.head(features))

    def _targets(self, batched_inputs: Inputs, size: tuple[int, int]) -> PartTargets:
        persons = labeled_persons(
            batched_inputs,
            num_keypoints=self.skeleton.num_keypoints,
            area_field="gt_box_areas",
            device=self.device,
        )
        return self.target_builder(
            persons, size, padded_ignore_masks(batched_inputs, size, self.device)
        )

    def loss_normalizers(self, batched_inputs: Inputs) -> dict[str, Tensor]:
        """See :meth:`PoseModel.loss_normalizers`."""
        size = map_size(self.preprocess_images(batched_inputs).tensor.shape[-2:])
        return self.criterion.normalizers(self._targets(batched_inputs, size))

    def detect_at_most(self, images: Tensor, image_sizes: Tensor, max_people: int) -> PeopleBatch:
        """Detects the people that :meth:`forward` detects, the best ``max_people`` of them.

        As many cells are decoded as there can be peaks, even where there are fewer. See
        :meth:`PoseModel.detect_at_most`.
        """
        view = self._look_at(images)
        mirrored = self._look_at(mirror_images(images)) if self.flip_test else None
        heatmaps, part_maps = self._averaged_maps(view, mirrored)
        peaks = fixed_peaks(part_maps, highest_by_size(part_maps), self.max_peaks)
        count = part_maps.shape[1] * self.max_peaks
        poses = self._averaged_poses(view, mirrored, PartCells(*peaks.indices()))
        poses, part_scores = poses.unflatten(0, (-1, count)), peaks.values.flatten(1)
        scores = score_keypoints(heatmaps, poses, part_scores)
        scores = torch.where(part_scores[..., None] > 0, scores, -torch.inf)
        keypoints, scores, _ = self.fusion.fuse_in_turns(poses, scores, part_scores)
        return poses_to_batch(keypoints, scores, max_people)

    def _averaged_maps(self, view: View, mirrored: View | None) -> tuple[Tensor, Tensor]:
        """Keypoint maps and part maps of both views."""
        heatmaps, part_maps = view.maps.heatmaps, view.maps.parts
        if mirrored is not None:
            swapped = self.skeleton.flip_indices
            heatmaps = average_maps(heatmaps, mirrored.maps.heatmaps, swapped)
            part_maps = average_maps(part_maps, mirrored.maps.parts, self.part_partners)
        return heatmaps, part_maps

    def _find_persons(self, view: View, mirrored: View | None) -> list[FoundPersons]:
        heatmaps, part_maps = self._averaged_maps(view, mirrored)
        cells = self._peaks(part_maps)
        poses = self._averaged_poses(view, mirrored, cells)
        counts = cells.images.bincount(minlength=len(heatmaps)).tolist()
        found = []
        for own_heatmaps, own_parts, own_poses, part_scores in zip(
            heatmaps,
            part_maps,
            poses.split(counts),
            cells.read_parts(part_maps).split(counts),
            strict=True,
        ):
            scores = score_keypoints(own_heatmaps, own_poses, part_scores)
            persons = self.fusion(own_poses, scores, part_scores)
            found.append(FoundPersons(persons, own_parts, own_poses))
        return found

    def _peaks(self, part_maps: Tensor) -> PartCells:
        if self._fixed_count is not None:
            peaks = [spread_cells(maps, self._fixed_count) for maps in part_maps]
        else:
            kernel = kernel_for_size(part_maps.shape[-2:])
            peaks = [
                find_peaks(maps, kernel=kernel, max_peaks=self.max_peaks) for maps in part_maps
            ]
        images = torch.cat([torch.full_like(found[:, 0], i) for i, found in enumerate(peaks)])
        return PartCells(images, *torch.cat(peaks).unbind(dim=1))

    def _averaged_poses(self, view: View, mirrored: View | None, cells: PartCells) -> Tensor:
        """Means of both views' poses at the cells, (M, K, 2) in cells."""
        poses = self._poses(view, cells)
        if mirrored is None:
            return poses
        width = view.features.shape[-1]
        others = self._poses(mirrored, cells.mirrored(width, self.part_partners))
        return (poses + mirror_poses(others, self.skeleton.flip_indices, width)) / 2

    def _poses(self, view: View, cells: PartCells) -> Tensor:
        """The refined poses that cells propose, (M, K, 2) in cells."""
        offsets = cells.read_offsets(view.maps.offsets, self.skeleton.num_keypoints)
        poses = cells.positions[:, None] + offsets
        if self.refinement is None:
            return poses
        return poses + self.refinement(view.features, poses, cells)

    def _output(self, found: FoundPersons, given: dict[str, Any]) -> dict[str, Any]:
        persons = found.persons
        output = {"instances": poses_to_instances(persons.keypoints, persons.scores, given)}
        if given.get("return_maps"):
            size = tuple(given["image"].shape[-2:])
            (height, width), wanted = map_size(size), wanted_size(given, size)
            scale = persons.scores.new_tensor([wanted[1] / size[1], wanted[0] / size[0]])
            rank = persons.scores.argsort(descending=True, stable=True).argsort()
            maps = found.part_maps[:, :height, :width]
            output["maps"] = dict(zip(self.part_names, maps, strict=True))
            output["proposals"] = cells_to_pixels(found.poses) * scale
            output["proposal_persons"] = rank[persons.person_of_pose]
        return output

    def parts(self) -> dict[str, list[nn.Module]]:
        """Backbone, head, matching in training, and refinement."""
        return {
            "backbone": [self.backbone],
            "head": [self.head],
            "matching": [self.target_builder],
            "refinement": [] if self.refinement is None else [self.refinement],
        }

    def fix_num_people(self, count: int) -> None:
        """Every part proposes ``count`` poses, at cells that its map does not choose."""
        self._fixed_count = count

    def is_skeleton_dependent(self, tensor_name: str) -> bool:
        """See :meth:`PoseModel.is_skeleton_dependent`."""
        return tensor_name.startswith(("head.", "refinement.adjacency", "refinement.correction."))
