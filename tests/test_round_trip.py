"""Annotations, fed through mapper, targets and decoding as predictions, score AP 1.0."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from querypose import register_coco_keypoints
from querypose.data import QueryPoseDatasetMapper
from querypose.modeling.sparse.box_coordinates import keypoints_to_box, keypoints_to_pixels
from querypose.skeleton import COCO_SKELETON

NAME = "round_trip_coco"


@pytest.fixture
def dataset(real_data):
    folder = real_data / "coco_fullsize"
    json_file = folder / "annotations" / "person_keypoints_val2017.json"
    register_coco_keypoints(NAME, json_file, folder / "val2017")
    yield DatasetCatalog.get(NAME)
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.mark.parametrize("flip", [False, True], ids=["upright", "flipped"])
def test_annotations_as_predictions_score_perfectly(dataset, flip, tmp_path):
    mapper = QueryPoseDatasetMapper(
        is_train=True,
        image_format="RGB",
        augmentations=[T.RandomFlip(prob=float(flip)), T.ResizeShortestEdge(480, 800)],
        crop_augmentations=[],
        crop_probability=0.0,
        skeleton=COCO_SKELETON,
    )
    evaluator = COCOEvaluator(
        NAME,
        tasks=("keypoints",),
        output_dir=str(tmp_path),
        kpt_oks_sigmas=list(COCO_SKELETON.sigmas),
        allow_cached_coco=False,
    )
    evaluator.reset()
    for record in dataset:
        mapped = mapper(record)
        people = _as_predictions(mapped["instances"], flip)
        predicted = detector_postprocess(people, record["height"], record["width"])
        evaluator.process([mapped], [{"instances": predicted}])
    results = evaluator.evaluate()["keypoints"]
    assert {results[name] for name in ("AP", "AP50", "AP75", "APm", "APl")} == {100.0}


def _as_predictions(targets: Instances, flip: bool) -> Instances:
    """What a perfect model would return for an image, flipped back."""
    boxes, keypoints = targets.gt_boxes.tensor, torch.zeros(0, 17, 3)
    if targets.has("gt_keypoints"):
        keypoints = targets.gt_keypoints.tensor
    # COCO's evaluation ignores people without keypoints, but not predictions of them.
    labeled = (keypoints[..., 2] > 0).any(dim=1)
    boxes, keypoints = boxes[labeled], keypoints[labeled]
    relative = keypoints_to_box(keypoints[..., :2], boxes)
    pixels = keypoints_to_pixels(relative, boxes)
    if flip:
        width = targets.image_size[1]
        names = COCO_SKELETON.keypoints
        partner = dict(COCO_SKELETON.flips) | {b: a for a, b in COCO_SKELETON.flips}
        swapped = np.array([names.index(partner.get(name, name)) for name in names])
        pixels = pixels[:, swapped]
        pixels[..., 0] = width - pixels[..., 0]
        boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    return Instances(
        targets.image_size,
        pred_boxes=Boxes(boxes),
        scores=torch.ones(len(boxes)),
        pred_classes=torch.zeros(len(boxes), dtype=torch.long),
        pred_keypoints=torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1),
    )
