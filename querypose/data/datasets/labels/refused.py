"""Refuses rows of a label file that contradict themselves or each other.

Every rule is a function that returns the end of a sentence about the row ("annotation 7 ..."), or
an empty string if the row is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from querypose.data.datasets.labels.rows import (
    Context,
    Row,
    are_numbers,
    holds_nan,
    is_id,
    is_number,
)

Refusal = Callable[[Row, Context], str]


def _no_id(row: Row, _: Context) -> str:
    if is_id(row.get("id")):
        return ""
    return f"has the id {row.get('id')!r:.50}; an id is an integer or a string"


def _nested_id(annotation: Row, _: Context) -> str:
    if not isinstance(annotation.get("id"), (list, dict)):
        return ""
    return f"has the id {annotation['id']!r:.50}; leave it out, and the annotation is numbered"


def _repeated_id(table: str) -> Refusal:
    def rule(row: Row, context: Context) -> str:
        if not is_id(row.get("id")) or row["id"] not in context.repeated_ids[table]:
            return ""
        return f"occurs twice; give every row of {table!r} an id of its own"

    return rule


def _no_file_name(image: Row, _: Context) -> str:
    if isinstance(image.get("file_name"), str) and image["file_name"]:
        return ""
    return f"has the file_name {image.get('file_name')!r:.50}; write the name of its file"


def _no_size(image: Row, _: Context) -> str:
    size = [image.get("width"), image.get("height")]
    if are_numbers(size, 2) and all(length > 0 and length == int(length) for length in size):
        return ""
    return f"has the width and height {size!r:.100}; write its size in pixels"


def _no_name(category: Row, _: Context) -> str:
    if isinstance(category.get("name"), str):
        return ""
    return f"has the name {category.get('name')!r:.50}; write a string"


def _no_keypoint_names(category: Row, _: Context) -> str:
    names = category.get("keypoints") or []
    if isinstance(names, list) and all(map(is_id, names)):
        return ""
    return f"has the keypoints {names!r:.100}; write a list of names"


def _keypoints_of_another_category(category: Row, context: Context) -> str:
    if (category.get("keypoints") or context.keypoint_names) == context.keypoint_names:
        return ""
    return (
        "lists other keypoints than the categories before it, or in another order; a model has one "
        "list of keypoints, so give the category a file of its own"
    )


def _keypoints_of_another_skeleton(category: Row, context: Context) -> str:
    """A skeleton declared for a file may rename the file's keypoints, but not reorder them."""
    names = [str(name) for name in category.get("keypoints") or []]
    skeleton = context.skeleton.keypoints
    if names and len(names) != len(skeleton):
        return (
            f"lists {len(names)} keypoints, but the skeleton {len(skeleton)}; correct one of them"
        )
    for position, name in enumerate(names):
        if name in skeleton and name != skeleton[position]:
            return (
                f"lists the keypoint {name!r} in position {position}, where the skeleton has "
                f"{skeleton[position]!r}; correct one of them"
            )
    return ""


def _no_image(annotation: Row, context: Context) -> str:
    image_id = annotation.get("image_id")
    if is_id(image_id) and image_id in context.known_ids["images"]:
        return ""
    return f"is of image {image_id!r:.50}, which is not in 'images'; add it or drop the annotation"


def _no_category(annotation: Row, context: Context) -> str:
    category_id = annotation.get("category_id")
    if is_id(category_id) and category_id in context.known_ids["categories"]:
        return ""
    return f"has category {category_id!r:.50}, which is not in 'categories'; correct it"


def _no_box(annotation: Row, _: Context) -> str:
    if are_numbers(annotation.get("bbox"), 4):
        return ""
    return (
        f"has the box {annotation.get('bbox')!r:.100}, not four finite numbers "
        "[x, y, width, height]; correct it, or write zeros for a box around the keypoints"
    )


def _no_keypoints(annotation: Row, context: Context) -> str:
    keypoints, count = annotation.get("keypoints"), context.skeleton.num_keypoints
    if keypoints in (None, []) or are_numbers(keypoints, 3 * count):
        return ""
    if not isinstance(keypoints, list) or any(isinstance(value, list) for value in keypoints):
        return f"has the keypoints {keypoints!r:.50}; write x, y, visibility of all, in one list"
    if len(keypoints) != 3 * count:
        return (
            f"has {len(keypoints)} keypoint numbers, not 3 x {count} = {3 * count}; check the "
            "annotation or the skeleton"
        )
    wrong = next(value for value in keypoints if not is_number(value))
    return (
        f"has {wrong!r:.50} among its keypoints, which is no finite number; write 0, 0, 0 for a "
        "keypoint without a label"
    )


def _no_number(key: str) -> Refusal:
    def rule(annotation: Row, _: Context) -> str:
        value = annotation.get(key)
        if value is None or is_number(value):
            return ""
        return f"has the {key} {value!r:.50}, no finite number; leave it out, and it is derived"

    return rule


def _no_crowd_flag(annotation: Row, _: Context) -> str:
    if annotation.get("iscrowd") in (None, 0, 1):
        return ""
    return f"has the iscrowd {annotation['iscrowd']!r:.50}; write 0 or 1"


def _no_segmentation(annotation: Row, _: Context) -> str:
    segmentation = annotation.get("segmentation")
    if not segmentation or _are_polygons(segmentation) or _is_rle(segmentation):
        return ""
    return (
        "has a segmentation that is neither a list of polygons [x, y, x, y, ...] in finite numbers "
        "nor a run-length code; correct it or leave it out"
    )


def _are_polygons(segmentation: Any) -> bool:
    return isinstance(segmentation, list) and all(
        isinstance(polygon, list) and all(map(is_number, polygon)) for polygon in segmentation
    )


def _is_rle(segmentation: Any) -> bool:
    if not isinstance(segmentation, dict) or not are_numbers(segmentation.get("size"), 2):
        return False
    counts, (height, width) = segmentation.get("counts"), segmentation["size"]
    if not isinstance(counts, list):
        return isinstance(counts, str)
    # pycocotools reads 32 bits and does not check that the runs fill the image exactly.
    whole = all(type(number) is int and 0 <= number < 2**32 for number in (*counts, height, width))
    return whole and sum(counts) == height * width


def _ignore_flag(annotation: Row, _: Context) -> str:
    if not annotation.get("ignore"):
        return ""
    return "is marked by 'ignore', which COCO's evaluation does not read; write iscrowd 1 instead"


def _not_finite(row: Row, context: Context) -> str:
    keys = [key for key, value in row.items() if holds_nan(value)] if context.holds_nan else []
    return f"holds NaN or an infinity in {keys[0]!r}; correct it or leave it out" if keys else ""


REFUSED: Mapping[str, Sequence[Refusal]] = {
    "images": (_no_id, _repeated_id("images"), _no_file_name, _no_size, _not_finite),
    "categories": (
        _no_id,
        _repeated_id("categories"),
        _no_name,
        _no_keypoint_names,
        _keypoints_of_another_category,
        _keypoints_of_another_skeleton,
        _not_finite,
    ),
    "annotations": (
        _nested_id,
        _repeated_id("annotations"),
        _no_image,
        _no_category,
        _no_box,
        _no_keypoints,
        _no_number("num_keypoints"),
        _no_number("area"),
        _no_crowd_flag,
        _no_segmentation,
        _ignore_flag,
        _not_finite,
    ),
}
"""The rules of every table, in the order in which they are checked."""
