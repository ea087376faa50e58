from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.data.datasets.crowdpose import SPLITS, register_crowdpose
from querypose.skeleton import CROWDPOSE_SKELETON, Skeleton

NAMES = [f"crowdpose_{split}" for split in SPLITS]


@pytest.fixture
def free_names():
    """The four names, free to be registered; afterwards the built-in datasets are back."""
    built_in = {name: MetadataCatalog.get(name).as_dict() for name in NAMES}
    loaders = {name: DatasetCatalog[name] for name in NAMES}

    def free():
        for name in NAMES:
            if name in DatasetCatalog:
                DatasetCatalog.remove(name)
            MetadataCatalog.pop(name, None)

    free()
    yield
    free()
    for name in NAMES:
        DatasetCatalog.register(name, loaders[name])
        MetadataCatalog.get(name).set(**built_in[name])


def write_official_layout(root: Path, split: str) -> None:
    """One image with one person, with the oddities of the official files."""
    folder = root / "crowdpose" / "json"
    folder.mkdir(parents=True)
    person = {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [10, 20, 30, 60]}
    person["keypoints"] = [12, 25, 2, 30, 24, 1] + [0] * 36
    person["num_keypoints"] = 2
    category = {"id": 1, "name": "person", "keypoints": list(CROWDPOSE_SKELETON.keypoints)}
    category["skeleton"] = [[16, 14], [14, 12], [17, 15], [15, 13]]
    image = {"id": 7, "file_name": "7.jpg", "width": 64, "height": 96, "crowdIndex": 0.5}
    content = {"images": [image], "annotations": [person], "categories": [category]}
    (folder / f"crowdpose_{split}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("split", SPLITS)
def test_built_in_splits_lie_where_the_benchmark_puts_them(split):
    metadata = MetadataCatalog.get(f"crowdpose_{split}")

    assert Path(metadata.json_file).parts[-3:] == ("crowdpose", "json", f"crowdpose_{split}.json")
    assert Path(metadata.image_root).parts[-2:] == ("crowdpose", "images")
    assert metadata.evaluator_type == "crowdpose"
    assert metadata.thing_classes == ["person"]


def test_metadata_declares_fourteen_keypoints_in_seven_parts():
    metadata = MetadataCatalog.get("crowdpose_trainval")

    assert metadata.keypoint_names[0] == "left_shoulder"
    assert metadata.keypoint_names[12:] == ["head", "neck"]
    assert len(metadata.keypoint_flip_map) == 6
    # crowdposetools' constants, in tenths.
    assert [round(10 * sigma, 4) for sigma in metadata.keypoint_oks_sigmas] == (
        [0.79] * 2 + [0.72] * 2 + [0.62] * 2 + [1.07] * 2 + [0.87] * 2 + [0.89] * 2 + [0.79] * 2
    )
    assert [len(part) for part in metadata.keypoint_parts] == [2] * 7
    assert Skeleton.from_metadata(metadata) == CROWDPOSE_SKELETON


def test_file_without_areas_and_with_cocos_edges_loads(tmp_path, free_names):
    write_official_layout(tmp_path, "val")
    register_crowdpose(str(tmp_path))

    (record,) = DatasetCatalog.get("crowdpose_val")

    assert record["file_name"] == str(tmp_path / "crowdpose" / "images" / "7.jpg")
    (person,) = record["annotations"]
    # Detectron2 turns pixel indices into continuous coordinates.
    assert person["keypoints"][:6] == [12.5, 25.5, 2, 30.5, 24.5, 1]
    assert person["category_id"] == 0


def test_missing_split_is_named(tmp_path, free_names):
    register_crowdpose(str(tmp_path))

    with pytest.raises(FileNotFoundError, match=r"crowdpose_test\.json"):
        DatasetCatalog.get("crowdpose_test")


def test_real_images_load(real_data, free_names, tmp_path):
    (tmp_path / "crowdpose").symlink_to(real_data / "crowdpose")
    register_crowdpose(str(tmp_path))

    images = DatasetCatalog.get("crowdpose_val")

    assert len(images) == 2000
    assert sum(len(image["annotations"]) for image in images) == 8527
    assert sum(Path(image["file_name"]).is_file() for image in images) >= 39
