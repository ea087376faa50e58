from __future__ import annotations

import copy
import functools
import json
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose.config import add_querypose_config
from querypose.data.datasets.coco import (
    register_coco_keypoints,
    register_configured_datasets,
    trained_category_ids,
)
from querypose.skeleton import COCO_SKELETON, Skeleton

NAME = "test_coco_dogs"
CONTENT = {
    "images": [{"id": 7, "file_name": "dog.jpg", "height": 40, "width": 60}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 3,
            "bbox": [2, 4, 20, 30],
            "area": 600,
            "iscrowd": 0,
            "keypoints": [5, 6, 2, 10, 12, 1, 0, 0, 0],
        }
    ],
    "categories": [
        {
            "id": 3,
            "name": "dog",
            "keypoints": ["left_paw", "right_paw", "tail"],
            "skeleton": [[1, 3], [2, 3]],
        }
    ],
}


@pytest.fixture(autouse=True)
def _forget_the_dataset():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog.list():
            catalog.remove(NAME)


@pytest.fixture
def json_file(tmp_path) -> Callable[[dict[str, Any]], Path]:
    def write(content: dict[str, Any] = CONTENT) -> Path:
        file = tmp_path / "dogs.json"
        file.write_text(json.dumps(content))
        return file

    return write


def _with_annotation(**changes: object) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    content["annotations"][0] |= changes
    return content


def test_the_file_declares_the_skeleton(json_file):
    register_coco_keypoints(NAME, json_file(), "images")
    metadata = MetadataCatalog.get(NAME)
    skeleton = Skeleton.from_metadata(metadata)
    assert skeleton.keypoints == ("left_paw", "right_paw", "tail")
    assert skeleton.flips == (("left_paw", "right_paw"),)
    assert skeleton.edge_indices == ((0, 2), (1, 2))
    assert metadata.evaluator_type == "coco"
    assert (metadata.json_file, metadata.image_root) == (str(json_file()), "images")


def test_a_given_skeleton_and_further_metadata(json_file):
    skeleton = Skeleton(("a", "b", "c"), parts=(("c", "a"), ("b",)))
    register_coco_keypoints(
        NAME, json_file(), "images", skeleton, evaluator_type="crowdpose", color="red"
    )
    metadata = MetadataCatalog.get(NAME)
    assert Skeleton.from_metadata(metadata) == skeleton
    assert (metadata.evaluator_type, metadata.color) == ("crowdpose", "red")


def test_loading_moves_keypoints_to_pixel_centers(json_file):
    register_coco_keypoints(NAME, json_file(), "images")
    (record,) = DatasetCatalog.get(NAME)
    assert record["file_name"] == str(Path("images", "dog.jpg"))
    assert (record["height"], record["width"], record["image_id"]) == (40, 60, 7)
    (person,) = record["annotations"]
    assert person["keypoints"] == [5.5, 6.5, 2, 10.5, 12.5, 1, 0.5, 0.5, 0]
    assert person["bbox"] == [2, 4, 20, 30]
    assert person["category_id"] == 0
    assert MetadataCatalog.get(NAME).thing_classes == ["dog"]


def test_a_person_without_keypoints_loads(json_file):
    content = copy.deepcopy(CONTENT)
    del content["annotations"][0]["keypoints"]
    register_coco_keypoints(NAME, json_file(content), "images")
    (record,) = DatasetCatalog.get(NAME)
    assert record["annotations"][0]["keypoints"][2::3] == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [1, 2, 2]}, r"annotation 1 has 3 keypoint numbers, not 3 x 3 = 9"),
        ({"keypoints": [0] * 51}, r"annotation 1 has 51 keypoint numbers, not 3 x 3 = 9"),
        ({"category_id": 9}, r"annotation 1 has category 9, which is not in 'categories'"),
        ({"image_id": 70}, r"annotation 1 is of image 70, which is not in 'images'"),
        ({"bbox": [1, 2, 3]}, r"annotation 1 has the box \[1, 2, 3\]"),
        ({"bbox": None}, r"annotation 1 has the box None"),
    ],
)
def test_a_bad_annotation_is_named_when_the_dataset_is_used(changes, message, json_file):
    register_coco_keypoints(NAME, json_file(_with_annotation(**changes)), "images")
    with pytest.raises(ValueError, match=rf"dogs\.json: {message}"):
        DatasetCatalog.get(NAME)


def test_a_missing_file_is_named_at_once_or_when_used(tmp_path):
    missing = tmp_path / "none.json"
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*none\.json"):
        register_coco_keypoints(NAME, missing, "images")
    assert NAME not in DatasetCatalog
    register_coco_keypoints(NAME, missing, "images", COCO_SKELETON)
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*none\.json"):
        DatasetCatalog.get(NAME)


def test_a_file_behind_an_address(json_file, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(json_file().parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            register_coco_keypoints(NAME, f"{address}/dogs.json", "images")
            assert len(DatasetCatalog.get(NAME)) == 1
            with pytest.raises(OSError, match=rf"{address}/none.json cannot be read: .*404"):
                register_coco_keypoints("another", f"{address}/none.json", "images")
        finally:
            server.shutdown()


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00bad", b"[1, 2"])
def test_bad_json_is_named(content, tmp_path):
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json is not valid JSON"):
        register_coco_keypoints(NAME, file, "images")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, r"lacks \['categories'\]"),
        ([], r"lacks \['annotations', 'categories', 'images'\]"),
        (CONTENT | {"categories": [{"id": 3, "name": "dog"}]}, "no category lists keypoints"),
    ],
)
def test_json_without_keypoints_is_refused(content, message, json_file):
    with pytest.raises(ValueError, match=rf"dogs\.json.*{message}"):
        register_coco_keypoints(NAME, json_file(content), "images")


def test_a_name_is_taken_once(json_file):
    register_coco_keypoints(NAME, json_file(), "images")
    with pytest.raises(ValueError, match=f"'{NAME}' is already registered"):
        register_coco_keypoints(NAME, json_file(), "images")


class TestConfiguredDatasets:
    @staticmethod
    def _cfg(*entries: object):
        cfg = get_cfg()
        add_querypose_config(cfg)
        cfg.DATASETS.REGISTER = list(entries)
        return cfg

    def test_entries_are_registered_once(self, json_file):
        cfg = self._cfg([NAME, str(json_file()), "images"])
        register_configured_datasets(cfg)
        register_configured_datasets(cfg)
        assert MetadataCatalog.get(NAME).keypoint_names == ["left_paw", "right_paw", "tail"]
        assert len(DatasetCatalog.get(NAME)) == 1

    def test_an_entry_may_name_a_skeleton_file(self, json_file, tmp_path):
        skeleton = tmp_path / "skeleton.yaml"
        skeleton.write_text(yaml.safe_dump({"keypoints": ["a", "b", "c"], "parts": [[2, 0], [1]]}))
        register_configured_datasets(self._cfg((NAME, str(json_file()), "images", str(skeleton))))
        parts = Skeleton.from_metadata(MetadataCatalog.get(NAME)).parts
        assert parts == (("c", "a"), ("b",))

    def test_two_entries_of_one_name_are_refused(self, json_file):
        entry = [NAME, str(json_file()), "images"]
        for other in (entry, [NAME, "other.json", "images"]):
            with pytest.raises(ValueError, match=f"has 2 entries named '{NAME}'; give every"):
                register_configured_datasets(self._cfg(entry, other))
        assert NAME not in DatasetCatalog

    @pytest.mark.parametrize("other", [["other.json", "images"], ["dogs.json", "elsewhere"]])
    def test_a_name_that_is_taken_by_other_files_is_refused(self, json_file, tmp_path, other):
        register_configured_datasets(self._cfg([NAME, str(json_file()), "images"]))
        (tmp_path / "other.json").write_text(json.dumps(CONTENT))
        entry = [NAME, str(tmp_path / other[0]), other[1]]
        with pytest.raises(ValueError, match=f"'{NAME}' to .*, but a dataset with another file"):
            register_configured_datasets(self._cfg(entry))
        with pytest.raises(ValueError, match=r"'crowdpose_val' to .*, but a dataset with another"):
            register_configured_datasets(self._cfg(["crowdpose_val", *entry[1:]]))

    def test_a_name_that_is_taken_with_another_skeleton_is_refused(self, json_file, tmp_path):
        entry = [NAME, str(json_file()), "images"]
        skeleton = tmp_path / "skeleton.yaml"
        skeleton.write_text(yaml.safe_dump({"keypoints": ["a", "b", "c"]}))
        register_configured_datasets(self._cfg([*entry, str(skeleton)]))
        register_configured_datasets(self._cfg([*entry, str(skeleton)]))
        skeleton.write_text(yaml.safe_dump({"keypoints": ["a", "c", "b"]}))
        with pytest.raises(ValueError, match="with another file, folder or skeleton has it"):
            register_configured_datasets(self._cfg([*entry, str(skeleton)]))

    def test_the_category_ids_of_the_training_set_are_known(self, json_file, tmp_path):
        skeleton = tmp_path / "skeleton.yaml"
        skeleton.write_text(yaml.safe_dump({"keypoints": ["a", "b", "c"]}))
        content = copy.deepcopy(CONTENT)
        content["categories"].insert(0, {"id": 9, "name": "cat"})
        cfg = self._cfg([NAME, str(json_file(content)), "images", str(skeleton)])
        cfg.DATASETS.TRAIN = (NAME,)
        # Not even registered, registered, and read.
        assert trained_category_ids(cfg) == (3, 9)
        register_configured_datasets(cfg)
        assert trained_category_ids(cfg) == (3, 9)
        DatasetCatalog.get(NAME)
        json_file().unlink()
        assert trained_category_ids(cfg) == (3, 9)

    def test_category_ids_without_a_label_file_are_unknown(self):
        cfg = self._cfg([NAME, "nowhere.json", "images"])
        cfg.DATASETS.TRAIN = (NAME,)
        assert trained_category_ids(cfg) == ()
        cfg.DATASETS.TRAIN = ("keypoints_coco_2017_train",)
        assert trained_category_ids(cfg) == ()
        cfg.DATASETS.TRAIN = ()
        assert trained_category_ids(cfg) == ()

    @pytest.mark.parametrize(
        "entry",
        [[NAME], [NAME, "a.json"], [NAME, "a.json", "b", "c.yaml", "d"], NAME, 7, [7, "a", "b"]],
    )
    def test_an_entry_of_another_form_is_refused(self, entry):
        with pytest.raises(ValueError, match=r"DATASETS\.REGISTER lists \[name, JSON"):
            register_configured_datasets(self._cfg(entry))

    def test_a_missing_skeleton_file_is_named(self, json_file):
        cfg = self._cfg([NAME, str(json_file()), "images", "nowhere.yaml"])
        with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
            register_configured_datasets(cfg)
