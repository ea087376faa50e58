"""COCO's keypoint evaluation, on checked and completed label files."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from querypose.data.datasets.coco import declared_skeleton, set_classes
from querypose.data.datasets.labels import Labels, read_labels, read_registered_labels
from querypose.evaluation.ground_truth import GroundTruth, warn_of_no_annotations
from querypose.evaluation.percent import in_percent
from querypose.evaluation.results_file import check_image_ids, match_results
from querypose.skeleton import Skeleton

# The first of pycocotools' summary.
_FILE_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR")
_PREDICTED_FIELDS = ("pred_boxes", "scores", "pred_keypoints")


class KeypointEvaluator(COCOEvaluator):
    """Detectron2's ``COCOEvaluator`` on labels as :mod:`querypose.data.datasets.labels` reads them.

    Images have the ids of the label file, also in the saved results. Every metric is NaN if no
    person was predicted or the file has no annotations. Of a model that predicts boxes without
    keypoints the task ``bbox`` alone is evaluated.

    Args:
        dataset_name: a keypoint dataset.
        *args: further arguments of ``COCOEvaluator``; ``kpt_oks_sigmas`` defaults to the
            skeleton's sigmas.
        **kwargs: likewise.

    Raises:
        FileNotFoundError: the label file does not exist.
        ValueError: the label file contradicts itself, or there is not one sigma per keypoint.
    """

    metric_names: Mapping[str, Sequence[str]] = {
        "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
        "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
    }

    def __init__(self, dataset_name: str, *args: Any, **kwargs: Any) -> None:
        metadata, labels = MetadataCatalog.get(dataset_name), self.read_labels(dataset_name)
        with _empty_dataset() as name:
            super().__init__(name, *args, **kwargs)
        self._metadata = metadata
        if metadata.get("json_file"):
            set_classes(dataset_name, labels)
        self._kpt_oks_sigmas = oks_sigmas(metadata, self._kpt_oks_sigmas)
        self._coco_api = GroundTruth(labels)
        self._do_evaluation = bool(labels.content["annotations"])

    @classmethod
    def read_labels(cls, dataset_name: str) -> Labels:
        """Reads the ground truth of a dataset, from its label file or its records.

        Raises:
            FileNotFoundError: the label file does not exist.
            ValueError: the labels contradict themselves.
        """
        return read_registered_labels(dataset_name)

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Collects the predictions of a batch; see Detectron2's ``COCOEvaluator``.

        Raises:
            ValueError: an image is not in the label file.
            FloatingPointError: a prediction is NaN or infinite.
        """
        image_ids = [image["image_id"] for image in inputs]
        check_image_ids(image_ids, self._coco_api.labels)
        for image_id, output in zip(image_ids, outputs, strict=True):
            if "instances" in output:
                _check_finite(output["instances"], image_id)
        super().process(inputs, outputs)

    def evaluate(self, img_ids: Sequence[int | str] | None = None) -> dict[str, Any]:
        """Computes metrics in percent by task, in the main process; empty in the others.

        Args:
            img_ids: ids of the images to evaluate on, from the label file; None takes all.
        """
        labels = self._coco_api.labels
        if img_ids is not None:
            img_ids = [labels.image_ids[image_id] for image_id in img_ids]
        results = super().evaluate(img_ids=img_ids)
        if self._do_evaluation or (self._distributed and not comm.is_main_process()):
            return results
        warn_of_no_annotations(labels)
        return {
            task: dict.fromkeys(self.metric_names[task], math.nan)
            for task in self._tasks or self.metric_names
        }

    def _eval_predictions(
        self, predictions: Sequence[dict[str, Any]], img_ids: Sequence[int] | None = None
    ) -> None:
        wanted = self._tasks
        # Only predictions tell: neither Detectron2's keys nor an architecture of one's own does.
        if wanted and not _may_have_keypoints(predictions):
            self._tasks = _without_keypoints(wanted)
        try:
            super()._eval_predictions(predictions, img_ids=img_ids)
        finally:
            self._tasks = wanted


def evaluate_coco(
    annotation_file: str | Path, results_file: str | Path, skeleton: Skeleton | None = None
) -> dict[str, float]:
    """Evaluates a file of results by COCO's definition, on any keypoints.

    Args:
        annotation_file: labels in COCO's format.
        results_file: results in COCO's format.
        skeleton: the keypoints and their OKS sigmas; None takes those of the labels' category.

    Returns:
        AP, AP50, AP75, APm, APl and AR in percent; NaN if there are no results, or no persons that
        a metric is of.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the labels contradict themselves, or a result does not fit them.
    """
    skeleton = skeleton or declared_skeleton(str(annotation_file))
    labels = read_labels(str(annotation_file), skeleton)
    evaluation = match_results(results_file, labels, skeleton.sigmas)
    if evaluation is None:
        return dict.fromkeys(_FILE_METRICS, math.nan)
    stats = zip(_FILE_METRICS, evaluation.stats, strict=False)
    return {name: in_percent(value) for name, value in stats}


def oks_sigmas(metadata: Metadata, sigmas: Sequence[float] = ()) -> list[float]:
    """Checks OKS sigmas against a dataset's skeleton; empty ones default to the skeleton's.

    Raises:
        ValueError: there is not one sigma per keypoint.
    """
    skeleton = Skeleton.from_metadata(metadata)
    if len(sigmas) not in (0, skeleton.num_keypoints):
        raise ValueError(
            f"There are {len(sigmas)} OKS sigmas (TEST.KEYPOINT_OKS_SIGMAS) for the "
            f"{skeleton.num_keypoints} keypoints of {metadata.name!r}; give one for each, or none."
        )
    return list(sigmas) or list(skeleton.sigmas)


@contextlib.contextmanager
def _empty_dataset() -> Iterator[str]:
    """Registers a dataset without labels, for Detectron2's constructor: it reads a label file."""
    with tempfile.TemporaryDirectory() as folder:
        json_file = Path(folder, "empty.json")
        json_file.write_text('{"annotations": []}')
        MetadataCatalog.get(folder).json_file = str(json_file)
        try:
            yield folder
        finally:
            MetadataCatalog.remove(folder)


def _may_have_keypoints(predictions: Sequence[dict[str, Any]]) -> bool:
    """Whether a person was predicted with keypoints, or nobody at all."""
    people = [person for image in predictions for person in image["instances"]]
    return not people or any("keypoints" in person for person in people)


def _without_keypoints(tasks: Sequence[str]) -> list[str]:
    remaining = [task for task in tasks if task != "keypoints"]
    if not remaining:
        raise ValueError(
            "The model predicts no keypoints: evaluate its boxes, with tasks=('bbox',)."
        )
    logging.getLogger(__name__).info("The model predicts no keypoints: %s alone.", remaining)
    return remaining


def _check_finite(instances: Instances, image_id: int | str) -> None:
    for field in _PREDICTED_FIELDS:
        values = instances.get(field) if instances.has(field) else None
        tensor = values.tensor if isinstance(values, Boxes) else values
        if tensor is not None and not tensor.isfinite().all():
            raise FloatingPointError(
                f"The {field} of image {image_id!r} contain NaN or infinity, which no metric can "
                "count; look for such numbers in the model's weights."
            )
