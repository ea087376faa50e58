"""Labels in pycocotools' form."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

from pycocotools.coco import COCO

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
