"""CrowdPose's evaluation: COCO's keypoint AP with areas from boxes, and AP by crowding.

The definitions are those of the benchmark's official tool, crowdposetools, a modified copy of
pycocotools. This module makes the same changes and leaves the counting to pycocotools.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.utils.logger import create_small_table
from pycocotools.cocoeval import COCOeval

from querypose.data.datasets.labels import (
    Labels,
    is_number,
    read_labels,
    read_registered_labels,
)
from querypose.evaluation.coco import KeypointEvaluator
from querypose.evaluation.percent import in_percent
from querypose.evaluation.results_file import match_results
from querypose.skeleton import CROWDPOSE_SKELETON, Skeleton

# Indices into pycocotools' summary of keypoint metrics.
_STATS = {"AP": 0, "AP50": 1, "AP75": 2, "AR": 5, "AR50": 6, "AR75": 7}
_LEVELS = ("easy", "medium", "hard")
# The lowest crowdIndex of the medium and of the hard level.
_LEVEL_STARTS = (0.2, 0.8)

METRICS = (*_STATS, *(f"AP_{level}" for level in _LEVELS))


class CrowdPoseEvaluator(KeypointEvaluator):
    """Evaluates keypoints as the CrowdPose benchmark does.

    :meth:`evaluate` returns ``{"keypoints": {...}}`` with, in percent, AP, AP50, AP75, AR, AR50,
    AR75, AP_easy, AP_medium and AP_hard. Every metric is NaN if no person was predicted or the
    file has no annotations; the AP of a level is NaN if the level has no people.

    Args:
        dataset_name: a dataset whose label file gives every image a ``crowdIndex``.
        tasks: ``"keypoints"`` and, for the AP of boxes by COCO's definition, ``"bbox"``.
        distributed: collect the predictions of all processes.
        output_dir: folder for the predictions; None saves none.
        kpt_oks_sigmas: per keypoint; empty takes the benchmark's own.

    Raises:
        FileNotFoundError: the label file does not exist.
        ValueError: the label file contradicts itself, or an image has no ``crowdIndex``.
    """

    metric_names = KeypointEvaluator.metric_names | {"keypoints": METRICS}

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] = ("keypoints",),
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        kpt_oks_sigmas: Sequence[float] = (),
    ) -> None:
        super().__init__(
            dataset_name,
            tasks,
            distributed,
            output_dir,
            use_fast_impl=False,
            kpt_oks_sigmas=kpt_oks_sigmas or CROWDPOSE_SKELETON.sigmas,
        )

    @classmethod
    def read_labels(cls, dataset_name: str) -> Labels:
        """Reads the ground truth of a dataset, with the benchmark's areas and levels.

        Raises:
            FileNotFoundError: the label file does not exist.
            ValueError: the label file contradicts itself, or an image has no ``crowdIndex``.
        """
        labels = read_registered_labels(dataset_name, areas_from_boxes=True)
        _check_crowd_indices(labels)
        return labels

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        if iou_type != "keypoints":
            return super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None:
            self._logger.warning("The model predicted no person.")
            return dict.fromkeys(METRICS, math.nan)
        results = _crowdpose_metrics(coco_eval)
        self._logger.info("CrowdPose results for keypoints:\n" + create_small_table(results))
        return results


def evaluate_crowdpose(
    annotation_file: str | Path,
    results_file: str | Path,
    skeleton: Skeleton = CROWDPOSE_SKELETON,
) -> dict[str, float]:
    """Evaluates a file of results.

    Args:
        annotation_file: CrowdPose's annotations of the split.
        results_file: results in COCO's format, with fourteen keypoints.
        skeleton: the keypoints and their OKS sigmas; by default the benchmark's own.

    Returns:
        The metrics of :class:`CrowdPoseEvaluator`, in percent; NaN if there are no results.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the annotations contradict themselves, an image has no ``crowdIndex``, or a
            result does not fit the annotations.
    """
    labels = read_labels(str(annotation_file), skeleton, areas_from_boxes=True)
    _check_crowd_indices(labels)
    evaluation = match_results(results_file, labels, skeleton.sigmas)
    if evaluation is None:
        return dict.fromkeys(METRICS, math.nan)
    return _crowdpose_metrics(evaluation)


def _check_crowd_indices(labels: Labels) -> None:
    images = {image["id"]: image for image in labels.content["images"]}
    without = [
        image_id
        for image_id, new_id in labels.image_ids.items()
        if not is_number(images[new_id].get("crowdIndex"))
    ]
    if without:
        raise ValueError(
            f"{labels.json_file}: {len(without)} of {len(images)} images have no crowdIndex (the "
            f"first is image {without[0]!r}), which CrowdPose's easy, medium and hard levels need; "
            "use the benchmark's own annotation files."
        )


def _crowdpose_metrics(coco_eval: COCOeval) -> dict[str, float]:
    """The benchmark's metrics, in percent, from a summarized keypoint evaluation."""
    metrics = {name: coco_eval.stats[index] for name, index in _STATS.items()}
    for level, image_ids in _images_by_level(coco_eval).items():
        metrics[f"AP_{level}"] = _average_precision(coco_eval, image_ids)
    return {name: in_percent(value) for name, value in metrics.items()}


def _images_by_level(coco_eval: COCOeval) -> dict[str, list[int]]:
    images: dict[str, list[int]] = {level: [] for level in _LEVELS}
    for image_id in coco_eval.params.imgIds:
        crowd_index = coco_eval.cocoGt.imgs[image_id]["crowdIndex"]
        images[_LEVELS[int(np.digitize(crowd_index, _LEVEL_STARTS))]].append(image_id)
    return images


def _average_precision(coco_eval: COCOeval, image_ids: Sequence[int]) -> float:
    """AP over the given images only, 0 to 1; -1 if they have no people.

    Like the official tool, this averages the whole precision array, including the -1 entries that
    pycocotools' summary masks out. They stand for categories without people. CrowdPose has one
    category, so either all entries are -1 or none is, and the two averages agree.
    """
    subset = copy.copy(coco_eval)
    subset.params = copy.deepcopy(coco_eval.params)
    subset.params.imgIds = list(image_ids)
    # CrowdPose has no metrics by size.
    subset.params.areaRng = subset.params.areaRng[:1]
    subset.params.areaRngLbl = subset.params.areaRngLbl[:1]
    with contextlib.redirect_stdout(io.StringIO()):
        subset.evaluate()
        subset.accumulate()
    return float(np.mean(subset.eval["precision"]))
