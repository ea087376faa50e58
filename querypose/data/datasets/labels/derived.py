"""Completes what a label file may leave out because it follows from the rest.

Every rule is a function that completes an annotation in place and returns whether it had to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from querypose.data.datasets.labels.rows import Context, Row
from querypose.oks import PERSON_AREA_PER_BOX_AREA
from querypose.skeleton import CROWDPOSE_SKELETON

# The benchmark does not count the last two keypoints, head and neck.
_COUNTED_IN_CROWDPOSE = 12
# Fractions of the box's area. Segmentations of persons who are nearly hidden stay within these
# bounds, and so do whole segmentations with boxes drawn tightly around the keypoints.
_LEAST_AREA, _MOST_AREA = 0.01, 2.0


def _iscrowd(person: Row, _: Context) -> bool:
    iscrowd = person.get("iscrowd")
    person["iscrowd"] = int(iscrowd or 0)
    return iscrowd is None


def _keypoints(person: Row, context: Context) -> bool:
    if person.get("keypoints"):
        return False
    person["keypoints"] = [0] * 3 * context.skeleton.num_keypoints
    return True


def _num_keypoints(person: Row, context: Context) -> bool:
    labeled = [flag > 0 for flag in person["keypoints"][2::3]]
    is_crowdpose = context.skeleton.keypoints == CROWDPOSE_SKELETON.keypoints
    counted = sum(labeled[:_COUNTED_IN_CROWDPOSE] if is_crowdpose else labeled)
    if person.get("num_keypoints") in (counted, sum(labeled)):
        return False
    person["num_keypoints"] = counted
    return True


def _bbox(person: Row, _: Context) -> bool:
    if min(person["bbox"][2:]) > 0:
        return False
    points = np.array(person["keypoints"], float).reshape(-1, 3)
    points = points[points[:, 2] > 0, :2]
    if not len(points):
        return False
    # Keypoints are pixel indices; a box covers whole pixels.
    start, end = points.min(axis=0), points.max(axis=0) + 1
    person["bbox"] = [*start.tolist(), *(end - start).tolist()]
    return True


def _area(person: Row, context: Context) -> bool:
    width, height = (max(length, 0) for length in person["bbox"][2:])
    area, derived = person.get("area"), PERSON_AREA_PER_BOX_AREA * width * height
    if context.areas_from_boxes:
        person["area"] = derived
        return False
    if area is not None and (area == derived or _is_credible(area, width * height, person)):
        return False
    person["area"] = derived
    return True


def _is_credible(area: float, box_area: float, person: Row) -> bool:
    # A crowd may fill little of its box; an empty box gives no bounds.
    if person["iscrowd"] or box_area == 0:
        return area > 0
    return _LEAST_AREA * box_area <= area <= _MOST_AREA * box_area


def _polygons(person: Row, _: Context) -> bool:
    segmentation = person.get("segmentation")
    if not isinstance(segmentation, list):
        return False
    polygons = [polygon for polygon in segmentation if len(polygon) % 2 == 0 and len(polygon) >= 6]
    if len(polygons) == len(segmentation):
        return False
    person["segmentation"] = polygons
    return True


def _run_length_code(person: Row, context: Context) -> bool:
    """Only the regions of crowds and of persons without labels are read: dense methods do."""
    segmentation = person.get("segmentation")
    is_region = person["iscrowd"] or not any(flag > 0 for flag in person["keypoints"][2::3])
    if is_region or not isinstance(segmentation, dict):
        return False
    if tuple(segmentation["size"]) == context.image_sizes[person["image_id"]]:
        return False
    del person["segmentation"]
    return True


DERIVED: Mapping[str, Callable[[Row, Context], bool]] = {
    "iscrowd is missing: it is 0": _iscrowd,
    "keypoints are missing: the person has no labels": _keypoints,
    "num_keypoints is missing or wrong: it is counted": _num_keypoints,
    "the box has no extent: it is the extent of the labeled keypoints": _bbox,
    "the area is missing, 0 or absurd for the box: "
    f"it is {PERSON_AREA_PER_BOX_AREA} of the box": _area,
    "a polygon has less than three points: it is dropped, the person stays": _polygons,
    "a run-length code has another size than the image: it is dropped, the person stays": (
        _run_length_code
    ),
}
"""The rules by their log message, in order: later rules rely on earlier ones."""
