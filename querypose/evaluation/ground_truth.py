"""Labels in pycocotools' form."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from querypose.data.datasets.labels import Labels


class GroundTruth(COCO):
    """Ground truth of a label file, for results with the file's own ids.

    Attributes:
        labels: the label file.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels
        self.dataset = {"info": {}} | labels.content
        with contextlib.redirect_stdout(io.StringIO()):
            self.createIndex()

    def loadRes(self, resFile: list[dict[str, Any]]) -> COCO:  # noqa: N802, N803
        """Converts results to pycocotools' form; the list is not changed.

        Args:
            resFile: results in COCO's format, with image and category ids of the label file.
        """
        return super().loadRes(
            [
                result
                | {
                    "image_id": self.labels.image_ids[result["image_id"]],
                    "category_id": self.labels.category_ids[result["category_id"]],
                }
                for result in resFile
            ]
        )


def warn_of_no_annotations(labels: Labels) -> None:
    """Logs why every metric is NaN."""
    logging.getLogger(__name__).warning(
        "%s has no annotations: there is nothing to evaluate.", labels.json_file
    )


def count_matches(
    labels: Labels, results: list[dict[str, Any]], sigmas: Sequence[float]
) -> COCOeval:
    """Matches results with labeled persons and summarizes, as COCO's keypoint evaluation does.

    Args:
        labels: with annotations.
        results: in COCO's format; at least one.
        sigmas: OKS standard deviations of the keypoints.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = GroundTruth(labels)
        coco_eval = COCOeval(ground_truth, ground_truth.loadRes(results), "keypoints")
        coco_eval.params.kpt_oks_sigmas = np.array(sigmas)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval
