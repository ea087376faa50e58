"""One declaration makes any keypoints trainable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from detectron2.structures import Boxes, Instances, Keypoints

TINY = (
    "MODEL.DEVICE cpu MODEL.WEIGHTS '' MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 "
    "MODEL.FPN.OUT_CHANNELS 64 MODEL.QUERYPOSE.HIDDEN_DIM 64 MODEL.QUERYPOSE.NUM_ATTENTION_HEADS 4 "
    "MODEL.QUERYPOSE.FFN_DIM 128 MODEL.QUERYPOSE.DYNAMIC_DIM 16 MODEL.QUERYPOSE.PART_DIM 32 "
    "MODEL.QUERYPOSE.NUM_KEYPOINT_CONVS 2 MODEL.QUERYPOSE.NUM_QUERIES 8 "
    "MODEL.QUERYPOSE.NUM_STAGES 2 INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 "
    "SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 4 DATALOADER.NUM_WORKERS 0"
)


@pytest.mark.parametrize("num_keypoints", [1, 4, 14, 17, 21, 133])
@pytest.mark.parametrize("feedback", [False, True], ids=["light", "full"])
def test_any_number_of_keypoints_trains_and_predicts(num_keypoints, feedback, tiny_model, tmp_path):
    file = tmp_path / "skeleton.yaml"
    file.write_text(yaml.safe_dump({"keypoints": [f"point_{i}" for i in range(num_keypoints)]}))
    model = tiny_model(
        {
            "MODEL.SKELETON": str(file),
            "MODEL.QUERYPOSE.KEYPOINT_FEEDBACK": feedback,
        }
    )
    people = Instances(
        (96, 128),
        gt_boxes=Boxes(torch.tensor([[10.0, 10, 60, 90], [50, 20, 120, 80]])),
        gt_classes=torch.zeros(2, dtype=torch.long),
        gt_keypoints=Keypoints(torch.full((2, num_keypoints, 3), 55.0)),
    )
    image = {"image": torch.rand(3, 96, 128) * 255, "instances": people}
    losses = model([image])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        found = model.eval()([image])[0]["instances"]
    assert found.pred_keypoints.shape[1:] == (num_keypoints, 3)
    assert torch.isfinite(found.pred_keypoints).all()


def test_crowdpose_trains_and_evaluates_by_its_config(real_data, repository, tmp_path):
    datasets = tmp_path / "datasets" / "crowdpose"
    (datasets / "json").mkdir(parents=True)
    for split in ("trainval", "test"):
        source = real_data / "crowdpose" / "json" / "crowdpose_val_tiny.json"
        shutil.copy(source, datasets / "json" / f"crowdpose_{split}.json")
    (datasets / "images").symlink_to(real_data / "crowdpose" / "images")
    config = "configs/crowdpose/querypose_r50_light_3x.yaml"
    finished = subprocess.run(
        [
            *(sys.executable, "train_net.py", "--config-file", config),
            *TINY.replace("''", "").split(" "),
            *("OUTPUT_DIR", str(tmp_path / "output")),
        ],
        cwd=repository,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert finished.returncode == 0, finished.stderr
    log = finished.stdout + finished.stderr
    assert "CrowdPose results for keypoints" in log and "AP_hard" in log
