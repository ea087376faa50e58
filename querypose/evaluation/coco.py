"""COCO's evaluation for annotation files that leave out what it needs."""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import COCOEvaluator
from pycocotools.coco import COCO

from querypose.oks import PERSON_AREA_PER_BOX_AREA


class KeypointEvaluator(COCOEvaluator):
    """Detectron2's ``COCOEvaluator`` for anyone's keypoints.

    OKS is relative to a person's area. Where an annotation has none, it is
    :data:`querypose.oks.PERSON_AREA_PER_BOX_AREA` of its box, as CrowdPose defines it, and the
    log says so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._do_evaluation:
            without = fill_in_areas(self._coco_api)
            if without:
                self._logger.warning(
                    "%d annotations have no area: %.2f of the box stands in for it.",
                    without,
                    PERSON_AREA_PER_BOX_AREA,
                )


def fill_in_areas(annotations: COCO) -> int:
    """Gives an area to every person without one, in place, and says whether they are a crowd.

    Returns:
        How many had none.
    """
    people = list(annotations.anns.values())
    without = [person for person in people if "area" not in person]
    for person in without:
        width, height = person["bbox"][2:]
        person["area"] = PERSON_AREA_PER_BOX_AREA * width * height
    for person in people:
        person.setdefault("iscrowd", 0)
    return len(without)
