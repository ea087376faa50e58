from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.data import register_coco_keypoints
from querypose.data.datasets.ochuman import SPLITS
from querypose.skeleton import COCO_SKELETON, Skeleton


@pytest.mark.parametrize("split", SPLITS)
def test_built_in_splits_lie_where_the_benchmark_puts_them(split):
    metadata = MetadataCatalog.get(f"ochuman_{split}")

    assert Path(metadata.json_file).parts[-3:] == (
        "ochuman",
        "annotations",
        f"ochuman_coco_format_{split}_range_0.00_1.00.json",
    )
    assert Path(metadata.image_root).parts[-2:] == ("ochuman", "images")


@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_evaluated_as_coco_keypoints(split):
    metadata = MetadataCatalog.get(f"ochuman_{split}")

    assert metadata.evaluator_type == "coco"
    assert Skeleton.from_metadata(metadata) == COCO_SKELETON


def test_real_images_load(real_data):
    name = "ochuman_sample_loading"
    folder = real_data / "ochuman"
    register_coco_keypoints(
        name, folder / "annotations" / "test_ochuman.json", folder / "images", COCO_SKELETON
    )
    try:
        images = DatasetCatalog.get(name)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

    assert len(images) == 3
    assert all(Path(image["file_name"]).is_file() for image in images)
    people = [person for image in images for person in image["annotations"]]
    assert [len(person["keypoints"]) for person in people] == [51] * 5
