"""Detectron2's own evaluator, on the datasets that QueryPose registers for it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from detectron2.structures import Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from querypose.data import register_coco_keypoints
from querypose.skeleton import COCO_SKELETON


@pytest.fixture
def register(temporary_datasets, tmp_path):
    """Registers annotation files, for the time of a test."""

    def name_of(annotation_file: Path) -> str:
        name = f"coco_evaluated_{tmp_path.name}_{len(temporary_datasets)}"
        register_coco_keypoints(name, annotation_file, tmp_path, COCO_SKELETON)
        temporary_datasets.append(name)
        return name

    return name_of


def evaluate_ground_truth(name: str, shift: float = 0) -> dict[str, float]:
    """Keypoint metrics of a dataset's own annotations, moved to the right by ``shift`` pixels."""
    evaluator = COCOEvaluator(
        name,
        tasks=("keypoints",),
        distributed=False,
        kpt_oks_sigmas=MetadataCatalog.get(name).keypoint_oks_sigmas,
    )
    evaluator.reset()
    for image in DatasetCatalog.get(name):
        people = [
            {**person, "keypoints": np.array(person["keypoints"]).reshape(-1, 3)}
            for person in image["annotations"]
        ]
        size = image["height"], image["width"]
        labeled = annotations_to_instances(people, size, mask_format="bitmask")
        predicted = Instances(
            size,
            pred_boxes=labeled.gt_boxes,
            pred_classes=labeled.gt_classes,
            pred_keypoints=labeled.gt_keypoints.tensor + torch.tensor([shift, 0, 0]),
            scores=torch.ones(len(labeled)),
        )
        evaluator.process([image], [{"instances": predicted}])
    return evaluator.evaluate()["keypoints"]


@pytest.fixture
def one_person(tmp_path) -> Path:
    """A file with one person of area 40 x 40 whose nose alone is labeled."""
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_SKELETON.keypoints)}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 1600,
                "bbox": [10, 10, 40, 80],
                "num_keypoints": 1,
                "keypoints": [30, 20, 2] + [0] * 48,
            }
        ],
    }
    path = tmp_path / "one_person.json"
    path.write_text(json.dumps(content))
    return path


def test_ground_truth_is_perfect(one_person, register):
    assert evaluate_ground_truth(register(one_person))["AP"] == pytest.approx(100)


def test_oks_by_hand(one_person, register):
    # A nose has sigma .026: moved by this, OKS is .62, three of the ten thresholds from .5 to .95.
    shift = math.sqrt(-math.log(0.62) * 2 * 1600 * (2 * 0.026) ** 2)

    metrics = evaluate_ground_truth(register(one_person), shift)

    assert (metrics["AP"], metrics["AP50"], metrics["AP75"]) == pytest.approx((30, 100, 0))


def test_no_one_predicted_is_nan(one_person, register):
    evaluator = COCOEvaluator(register(one_person), tasks=("keypoints",), distributed=False)
    evaluator.reset()
    no_one = Instances((100, 100), scores=torch.zeros(0))
    evaluator.process([{"image_id": 1}], [{"instances": no_one}])

    assert all(map(math.isnan, evaluator.evaluate()["keypoints"].values()))


def test_official_tools_numbers(real_data):
    folder = real_data / "evaluators"
    ground_truth = COCO(str(folder / "example_coco_val.json"))
    results = json.loads((folder / "example_coco_preds.json").read_text())

    stats = _evaluate_predictions_on_coco(
        ground_truth,
        results,
        "keypoints",
        kpt_oks_sigmas=COCO_SKELETON.sigmas,
        cocoeval_fn=COCOeval,
    ).stats

    # AP, AP50, AP75, APm, APl, AR
    assert stats[:6].round(4).tolist() == [0.8609, 0.9931, 0.9109, 0.7756, 0.9373, 0.8750]


def test_real_ochuman_ground_truth_is_perfect(real_data, register):
    name = register(real_data / "ochuman" / "annotations" / "test_ochuman.json")

    metrics = evaluate_ground_truth(name)

    assert (metrics["AP"], metrics["AP50"], metrics["AP75"]) == pytest.approx((100, 100, 100))
