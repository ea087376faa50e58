"""Golden vectors of CIR-QEM in this package's terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances, Keypoints
from torch import Tensor

from querypose.modeling.dense.cells import Cells
from querypose.modeling.dense.persons import LabeledPersons
from querypose.modeling.dense.quality_readout import QualityReadout
from querypose.modeling.dense.quality_targets import QualityTargets
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

SKELETONS = {17: COCO_SKELETON, 14: CROWDPOSE_SKELETON}
"""By the number of keypoints."""

MIN_AREA = {17: 1024.0, 14: 0.0}
"""By the number of keypoints: COCO has the rule, CrowdPose does not."""

# The switches of each variant of quality_mini, as arguments of the head and of the criterion.
HEADS: dict[str, dict[str, Any]] = {
    "expt1": {"kqe": False, "pqe": False},
    "expt2": {"kqe": False, "pqe": False},
    "expt3": {"pqe": False},
    "gaussian_quality": {"quality_branch": True},
    "discrete_quality": {"quality_branch": True},
    "n0": {"num_semantic_points": 0},
    "n3": {"num_semantic_points": 3},
    "n12": {"num_semantic_points": 12},
    "auto": {"pose_query": "auto"},
    "sp": {"pose_query": "sp"},
    "kps": {"pose_query": "kps"},
    "deform": {"aggregate": "deform"},
}
CRITERIA: dict[str, dict[str, Any]] = {
    "expt1": {"instance_label": "gaussian"},
    "gaussian": {"instance_label": "gaussian"},
    "gaussian_quality": {"instance_label": "gaussian", "quality_branch": True},
    "discrete": {"instance_label": "discrete"},
    "discrete_quality": {"instance_label": "discrete", "quality_branch": True},
    "pixel": {"cir_reduction": "pixel"},
    "noscale": {"scale_norm": False},
}

_NAMES = (
    ("head.rk.conv.", "keypoint_maps.features.0."),
    ("head.rk.bn.", "keypoint_maps.features.1."),
    ("head.query.", "keypoint_maps.query."),
    ("head.semantic.", "keypoint_decoder.semantic."),
    ("head.aggregate.bn.", "keypoint_decoder.aggregation_norm."),
    ("head.aggregate.", "keypoint_decoder.aggregation."),
    ("head.keypoint.", "keypoint_decoder.keypoint."),
    ("head.ri.conv.", "score_branch.features.0."),
    ("head.ri.bn.", "score_branch.features.1."),
    ("head.auto.", "score_branch.free_points."),
    ("head.score_reduce.conv.", "score_branch.reduce."),
    ("head.score_reduce.bn.", "score_branch.reduce_norm."),
    ("head.score_out.", "score_branch.score."),
    ("head.quality_out.", "score_branch.quality."),
)


def head_name(golden_name: str) -> str:
    """The name of a tensor in :class:`QualityHead`."""
    for golden, ours in _NAMES:
        if golden_name.startswith(golden):
            return ours + golden_name.removeprefix(golden)
    raise KeyError(golden_name)


def head_state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of :class:`QualityHead` from the golden file's tensors."""
    return {
        # The kernel of a 1 x N convolution.
        head_name(name): value.unsqueeze(2) if value.dim() == 3 else value
        for name, value in weights.items()
        if name.startswith("head.")
    }


def labeled_instances(arrays: dict[str, np.ndarray], index: int, prefix: str = "") -> Instances:
    """Ground truth of image ``index``, as a mapper gives it."""
    height, width = arrays[f"{prefix}gt{index}_ignore"].shape
    return Instances(
        (4 * height, 4 * width),
        gt_keypoints=Keypoints(torch.from_numpy(arrays[f"{prefix}gt{index}_keypoints"])),
        gt_areas=torch.from_numpy(arrays[f"{prefix}gt{index}_area"]),
    )


def persons_of(arrays: dict[str, np.ndarray], index: int, prefix: str = "") -> LabeledPersons:
    """Ground truth of image ``index``, in cells."""
    return LabeledPersons.from_instances(
        labeled_instances(arrays, index, prefix),
        num_keypoints=arrays[f"{prefix}gt{index}_keypoints"].shape[1],
        area_field="gt_areas",
        device=torch.device("cpu"),
    )


def targets_and_masks(
    arrays: dict[str, np.ndarray], prefix: str = ""
) -> tuple[QualityTargets, Tensor]:
    """Targets and ignore masks of all images of a golden file."""
    pattern = re.compile(re.escape(prefix) + r"gt(\d+)_ignore")
    num_images = sum(bool(pattern.fullmatch(name)) for name in arrays)
    persons = [persons_of(arrays, index, prefix) for index in range(num_images)]
    masks = [torch.from_numpy(arrays[f"{prefix}gt{index}_ignore"]) for index in range(num_images)]
    masks = torch.stack(masks)
    smallest = MIN_AREA[persons[0].labeled.shape[1]]
    return QualityTargets.from_persons(persons, tuple(masks.shape[-2:]), smallest), masks


def image_sizes(masks: Tensor) -> list[tuple[int, int]]:
    """Sizes in pixels of the images whose ignore masks are given."""
    return [(4 * masks.shape[1], 4 * masks.shape[2])] * len(masks)


def assert_readout_equals(
    arrays: dict[str, Any],
    view: str,
    scores: Tensor,
    readers: Sequence[Callable[[Cells], Tensor]],
    assert_close_to: Callable[..., None],
    tolerance: float = 1e-4,
) -> None:
    """Compares peaks, poses, scores and the result of the suppression."""
    skeleton = SKELETONS[arrays[f"{view}0_poses"].shape[1]]
    readout = QualityReadout(skeleton=skeleton, max_peaks=30, nms=True)
    readers = readers if view == "flip" else readers[:1]
    cells = readout.peaks(scores)
    for index, found in enumerate(readout.poses(scores, *readers)):
        expected = arrays[f"{view}{index}_cells"]
        own = cells.images == index
        actual = torch.stack([cells.rows[own], cells.columns[own]], dim=1)
        # Peaks may tie to 1e-5, so rows are matched by their cell.
        order = [actual.tolist().index(cell) for cell in expected.tolist()]
        assert len(order) == len(actual)
        poses = found.places
        assert_close_to(poses[order], arrays[f"{view}{index}_poses"], tolerance)
        assert_close_to(found.scores[order], arrays[f"{view}{index}_scores"], tolerance)
        kept = readout.select(found)
        expected_poses = poses[order][arrays[f"{view}{index}_keep"]]
        assert_close_to(kept.places, expected_poses, tolerance)
