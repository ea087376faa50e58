"""A small model learns twenty real pictures by heart.

This is the proof that loss, mapper, flip map, coordinates and evaluator agree: an error of a pixel,
a swapped side or a wrong scale anywhere would keep AP low.
"""

from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose import register_coco_keypoints
from querypose.config import read_config
from querypose.engine import QueryPoseTrainer

NAME = "twenty_pictures"
NUM_PICTURES, MAX_PEOPLE, MIN_KEYPOINTS = 20, 2, 8
# Of the picture, so that a small input shows every person in detail.
MIN_BOX_SHARE = 0.15


@pytest.fixture
def twenty_pictures(real_data, tmp_path):
    folder = real_data / "coco_person"
    content = json.loads((folder / "annotations" / "person_keypoints_train.json").read_text())
    people = {image["id"]: [] for image in content["images"]}
    for person in content["annotations"]:
        people[person["image_id"]].append(person)
    chosen = [image for image in content["images"] if _is_clear(image, people[image["id"]])]
    content["images"] = chosen[:NUM_PICTURES]
    content["annotations"] = [
        person for image in chosen[:NUM_PICTURES] for person in people[image["id"]]
    ]
    json_file = tmp_path / "twenty.json"
    json_file.write_text(json.dumps(content))
    register_coco_keypoints(NAME, json_file, folder / "train")
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def _is_clear(image, people) -> bool:
    smallest = MIN_BOX_SHARE * image["width"] * image["height"]
    return 1 <= len(people) <= MAX_PEOPLE and all(
        not person["iscrowd"]
        and person["num_keypoints"] >= MIN_KEYPOINTS
        and person["bbox"][2] * person["bbox"][3] > smallest
        for person in people
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_pictures_are_learnt_by_heart(twenty_pictures, repository, tmp_path):
    cfg = read_config(
        repository / "configs" / "quick" / "overfit.yaml",
        ["DATASETS.TRAIN", f"('{NAME}',)", "DATASETS.TEST", f"('{NAME}',)"],
    )
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    trainer = QueryPoseTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer._last_eval_results["keypoints"]["AP"] > 90
