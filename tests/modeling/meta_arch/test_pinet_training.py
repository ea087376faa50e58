"""PINet through train_net.py, as its users train and evaluate it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from querypose import register_coco_keypoints
from querypose.config import read_config
from querypose.data import PoseAffineMapper
from querypose.engine import QueryPoseTrainer

SMALL = (
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "INPUT.AFFINE.SIZE", "64"),
    *("INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"),
)


@pytest.fixture
def train_net(repository, tmp_path):
    """Runs the command; returns what it says."""

    def run(config: str, *arguments: str) -> str:
        finished = subprocess.run(
            [
                *(sys.executable, "train_net.py", "--config-file", f"configs/{config}.yaml"),
                *arguments,
                *("OUTPUT_DIR", str(tmp_path / "output")),
            ],
            cwd=repository,
            env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout + finished.stderr

    return run


def test_the_light_model_trains_resumes_and_evaluates(train_net, tmp_path):
    options = (
        *(*SMALL, "MODEL.TIMM.NAME", "test_resnet", "DATASETS.TRAIN", "('synthetic_people_tiny',)"),
        *("DATASETS.TEST", "('synthetic_people_tiny',)", "TEST.EVAL_PERIOD", "0"),
        *("SOLVER.ACCUMULATE_STEPS", "2"),
    )
    train_net("quick/pinet_lite0", *options, "SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()")
    log = train_net("quick/pinet_lite0", "--resume", *options, "SOLVER.MAX_ITER", "4")
    assert "Starting training from iteration 2" in log
    assert "Evaluation results for keypoints" in log
    path = tmp_path / "output" / "model_final.pth"
    assert torch.load(path, map_location="cpu", weights_only=True)["iteration"] == 3


def test_crowdpose_trains_and_evaluates_by_its_config(real_data, train_net, tmp_path):
    datasets = tmp_path / "datasets" / "crowdpose"
    (datasets / "json").mkdir(parents=True)
    for split in ("trainval", "test"):
        source = real_data / "crowdpose" / "json" / "crowdpose_val_tiny.json"
        shutil.copy(source, datasets / "json" / f"crowdpose_{split}.json")
    (datasets / "images").symlink_to(real_data / "crowdpose" / "images")
    small = (*SMALL, "MODEL.HRNET.NAME", "hrnet_w18_small", "SOLVER.MAX_ITER", "2")
    log = train_net("crowdpose/pinet_hrnet_w32", *small)
    assert "CrowdPose results for keypoints" in log and "AP_hard" in log


@pytest.fixture
def coco_val(real_data):
    folder, name = real_data / "coco_person", "coco_person_val_for_pinet"
    json_file = folder / "annotations" / "person_keypoints_val.json"
    register_coco_keypoints(name, json_file, folder / "val")
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_coco_images_need_more_than_ten_labeled_keypoints(coco_val, repository):
    cfg = read_config(repository / "configs" / "coco" / "pinet_hrnet_w32.yaml")
    cfg.DATASETS.TRAIN = (coco_val,)
    loader = QueryPoseTrainer.build_train_loader(cfg)
    assert isinstance(loader.mapper, PoseAffineMapper)
    labeled = [
        sum(v > 0 for person in record["annotations"] for v in person["keypoints"][2::3])
        for record in DatasetCatalog.get(coco_val)
    ]
    assert len(loader.records) == sum(count > 10 for count in labeled) < len(labeled)
