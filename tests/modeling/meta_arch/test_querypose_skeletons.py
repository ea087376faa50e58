from __future__ import annotations

import pytest
import torch
import yaml
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from querypose.config import read_config
from querypose.modeling.pose_model import skeleton_from_config
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON

LIGHT, FULL = {}, {"MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": True}
HEATMAP = {"MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED": True}
SIZE = (64, 96)


@pytest.mark.parametrize("num_keypoints", [1, 5])
@pytest.mark.parametrize("changes", [LIGHT, FULL])
def test_any_skeleton_trains_and_predicts(
    num_keypoints, changes, small_model, training_input, tmp_path
):
    file = tmp_path / "skeleton.yaml"
    names = [f"point_{index}" for index in range(num_keypoints)]
    parts = [[4, 0], [2], [1, 3]] if num_keypoints == 5 else [[0]]
    file.write_text(yaml.safe_dump({"keypoints": names, "parts": parts}))
    model = small_model(changes | HEATMAP | {"MODEL.SKELETON": str(file)})
    assert model.decoder.part_queries.num_embeddings == len(parts)
    losses = model([training_input(2, SIZE, num_keypoints)])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        people = model.eval()([{"image": torch.rand(3, *SIZE)}])[0]["instances"]
    assert len(people) > 0
    assert people.pred_keypoints.shape == (len(people), num_keypoints, 3)


def test_the_first_training_dataset_declares_it(tiny_cfg):
    cfg = tiny_cfg({"DATASETS.TRAIN": ("crowdpose_train", "keypoints_coco_2017_train")})
    assert skeleton_from_config(cfg) == CROWDPOSE_SKELETON


def test_without_training_datasets_the_first_test_dataset_does(tiny_cfg):
    cfg = tiny_cfg({"DATASETS.TRAIN": (), "DATASETS.TEST": ("keypoints_coco_2017_val",)})
    assert skeleton_from_config(cfg) == COCO_SKELETON


def test_a_config_may_contain_the_text_of_a_skeleton(tmp_path):
    lines = ("SKELETON: |", "  keypoints: [nose, left_hand, right_hand]", "  parts: [[0], [1, 2]]")
    text = "\n  ".join(("MODEL:", *lines))
    (tmp_path / "written.yaml").write_text(text)
    cfg = read_config(tmp_path / "written.yaml")
    assert skeleton_from_config(cfg).part_indices == ((0,), (1, 2))
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    assert skeleton_from_config(read_config(tmp_path / "dumped.yaml")) == skeleton_from_config(cfg)
    cfg.MODEL.SKELETON = "keypoints: [nose]\nlegs: 2\n"
    with pytest.raises(ValueError, match=r"MODEL\.SKELETON does not declare a skeleton: .*legs"):
        skeleton_from_config(cfg)


def test_every_keypoint_may_be_a_part_of_its_own(small_model, training_input):
    model = small_model({"MODEL.QUERYPOSE.PART_PER_KEYPOINT": True})
    assert model.skeleton.parts == tuple((name,) for name in COCO_SKELETON.keypoints)
    assert model.skeleton.flips == COCO_SKELETON.flips
    assert model.decoder.part_queries.num_embeddings == 17
    losses = model([training_input(2, SIZE)])
    assert all(loss.isfinite() for loss in losses.values())


def test_without_any_dataset_the_way_out_is_named(tiny_cfg):
    cfg = tiny_cfg({"DATASETS.TRAIN": (), "DATASETS.TEST": ()})
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN .*or MODEL\.SKELETON"):
        build_model(cfg)


def test_a_dataset_without_keypoints_is_refused(tiny_cfg):
    name = "test_querypose_without_keypoints"
    MetadataCatalog.get(name).set(thing_classes=["person"])
    with pytest.raises(ValueError, match=f"'{name}' declares no keypoints"):
        build_model(tiny_cfg({"DATASETS.TRAIN": (name,)}))
    MetadataCatalog.remove(name)
