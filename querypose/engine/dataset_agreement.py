"""Whether a config's datasets fit its model and each other, asked before the work."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.modeling.querypose import skeleton_from_config
from querypose.skeleton import Skeleton


def check_keypoints(cfg: CfgNode) -> None:
    """Compares the model's keypoints with those of every training and test set.

    Results and labels name keypoints by their position alone, so count, names and order must agree.

    Raises:
        ValueError: a dataset has others, or declares none.
    """
    expected = skeleton_from_config(cfg).keypoints
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            found = Skeleton.from_metadata(MetadataCatalog.get(name)).keypoints
            if found != expected:
                raise ValueError(
                    f"{name!r} in DATASETS.{key} does not have the model's keypoints: "
                    f"{_difference(found, expected)}; bring its label file into the model's order, "
                    "or leave it out."
                )


def check_classes(cfg: CfgNode) -> None:
    """Compares the model's classes with the categories of every training and test set.

    Classes, too, go by their position. A dataset may have more categories than the model, if no
    annotation is of them. A training set whose file is not here is passed over: an evaluation does
    not need it.

    Raises:
        FileNotFoundError: a test set's label file is not here.
        ValueError: a dataset has other categories, or fewer.
    """
    num_classes = cfg.MODEL.QUERYPOSE.NUM_CLASSES
    taught: Sequence[str] = ()
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            classes = _class_names(name, required=key == "TEST")
            if not classes:
                continue
            taught = taught or classes[:num_classes]
            if len(classes) < num_classes or _has_annotations_above(name, num_classes):
                raise ValueError(
                    f"{name!r} in DATASETS.{key} has the categories {list(classes)}, but "
                    f"MODEL.QUERYPOSE.NUM_CLASSES is {num_classes}; make both the same."
                )
            # The name of a single class says nothing that a position could mix up.
            if num_classes > 1 and list(classes[:num_classes]) != list(taught):
                raise ValueError(
                    f"{name!r} in DATASETS.{key} has the categories {list(classes)}, where the "
                    f"model learns {list(taught)}, in this order; renumber its categories."
                )


def _difference(found: Sequence[str], expected: Sequence[str]) -> str:
    if len(found) != len(expected):
        return f"it has {len(found)} keypoints, not {len(expected)}"
    index = next(
        i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]
    )
    what = "their order is another" if sorted(found) == sorted(expected) else "their names differ"
    return f"{what}, in position {index} is {found[index]!r}, not {expected[index]!r}"


def _class_names(name: str, *, required: bool) -> Sequence[str]:
    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_classes"):
        try:
            DatasetCatalog.get(name)
        except FileNotFoundError:
            if required:
                raise
    return metadata.get("thing_classes", ())


def _has_annotations_above(name: str, num_classes: int) -> bool:
    if len(MetadataCatalog.get(name).thing_classes) <= num_classes:
        return False
    return any(
        annotation["category_id"] >= num_classes
        for record in DatasetCatalog.get(name)
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd", 0)
    )
