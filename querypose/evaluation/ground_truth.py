"""Labels as pycocotools takes them."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

from pycocotools.coco import COCO

from querypose.data.datasets.labels import Labels


class GroundTruth(COCO):
    """The people of a label file, to be compared with results that have the file's own ids.

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
        """Results as pycocotools takes them; the list stays as it is.

        Args:
            resFile: results in COCO's format, of images and categories of the label file.
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
    """Says in the log why every metric is NaN."""
    logging.getLogger(__name__).warning(
        "%s has no annotations: there is nothing to evaluate.", labels.json_file
    )
