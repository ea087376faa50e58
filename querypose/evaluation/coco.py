"""COCO's evaluation for annotation files that leave out what it needs."""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import COCOEvaluator

PERSON_AREA_PER_BOX_AREA = 0.53
"""How much of a box a person covers; stands in for a segmented area that is not annotated."""


class KeypointEvaluator(COCOEvaluator):
    """Detectron2's ``COCOEvaluator`` for anyone's keypoints.

    OKS is relative to a person's area. Where an annotation has none, it is
    :data:`PERSON_AREA_PER_BOX_AREA` of its box, as CrowdPose defines it, and the log says so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self._do_evaluation:
            self._fill_in_areas()

    def _fill_in_areas(self) -> None:
        without = [person for person in self._coco_api.anns.values() if "area" not in person]
        for person in without:
            width, height = person["bbox"][2:]
            person["area"] = PERSON_AREA_PER_BOX_AREA * width * height
        if without:
            self._logger.warning(
                "%d annotations have no area: %.2f of the box stands in for it.",
                len(without),
                PERSON_AREA_PER_BOX_AREA,
            )
        for person in self._coco_api.anns.values():
            person.setdefault("iscrowd", 0)
