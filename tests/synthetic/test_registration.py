import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.data.transforms import RandomFlip
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools import mask as mask_util

from querypose.skeleton import COCO_SKELETON
from querypose.synthetic import register_synthetic_people

NAMES = COCO_SKELETON.keypoints


@pytest.mark.parametrize("name", ["train", "val", "tiny"])
def test_builtin_datasets_declare_the_coco_skeleton(name):
    metadata = MetadataCatalog.get(f"synthetic_people_{name}")
    assert f"synthetic_people_{name}" in DatasetCatalog.list()
    assert metadata.evaluator_type == "coco" and metadata.thing_classes == ["person"]
    flips = create_keypoint_hflip_indices(f"synthetic_people_{name}")
    assert [NAMES[i].replace("left", "?").replace("right", "?") for i in flips] == [
        n.replace("left", "?").replace("right", "?") for n in NAMES
    ]
    assert flips[NAMES.index("left_knee")] == NAMES.index("right_knee")


def test_tiny_records_feed_detectron2s_mapper(keypoints_of):
    record = DatasetCatalog.get("synthetic_people_tiny")[0]
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[RandomFlip(prob=1.0)],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        use_keypoint=True,
        keypoint_hflip_indices=create_keypoint_hflip_indices("synthetic_people_tiny"),
    )
    mapped = mapper(copy.deepcopy(record))
    assert mapped["image"].shape == (3, 256, 256)
    instances, annotation = mapped["instances"], record["annotations"][0]
    left, top, right, bottom = annotation["bbox"]
    assert instances.gt_boxes.tensor[0].tolist() == [256 - right, top, 256 - left, bottom]
    before = keypoints_of(annotation)[NAMES.index("left_hip")]
    after = instances.gt_keypoints.tensor[0, NAMES.index("right_hip")].numpy()
    assert before[2] > 0
    np.testing.assert_allclose(after, [256 - before[0], before[1], before[2]], atol=1e-3)


def as_predictions(record, keypoints_of):
    instances = Instances((record["height"], record["width"]))
    people = record["annotations"]
    instances.pred_boxes = Boxes(torch.tensor([a["bbox"] for a in people]))
    instances.scores = torch.ones(len(people))
    instances.pred_classes = torch.zeros(len(people), dtype=torch.int64)
    keypoints = torch.tensor(np.stack([keypoints_of(a) for a in people]), dtype=torch.float32)
    instances.pred_keypoints = keypoints
    return {"instances": instances}


def test_ground_truth_as_predictions_scores_full_ap(tmp_path, keypoints_of):
    name = "synthetic_people_round_trip"
    register_synthetic_people(name, num_images=8, seed=21, image_size=(256, 256))
    evaluator = COCOEvaluator(
        name,
        output_dir=str(tmp_path),
        distributed=False,
        kpt_oks_sigmas=MetadataCatalog.get(name).keypoint_oks_sigmas,
    )
    evaluator.reset()
    records = DatasetCatalog.get(name)
    evaluator.process(records, [as_predictions(record, keypoints_of) for record in records])
    results = evaluator.evaluate()
    assert results["keypoints"]["AP"] == pytest.approx(100.0)
    assert results["bbox"]["AP"] == pytest.approx(100.0)
    assert records == DatasetCatalog.get(name)


def test_areas_of_the_coco_conversion_are_visible_pixels(tmp_path):
    name = "synthetic_people_areas"
    register_synthetic_people(name, num_images=3, seed=22, image_size=(256, 256))
    coco = COCOEvaluator(name, output_dir=str(tmp_path), distributed=False)._coco_api
    for record in DatasetCatalog.get(name):
        converted = coco.loadAnns(coco.getAnnIds(record["image_id"]))
        for ours, theirs in zip(record["annotations"], converted, strict=True):
            visible = mask_util.decode(ours["segmentation"]).sum()
            assert theirs["area"] == ours["area"] == visible
            x, y, width, height = theirs["bbox"]
            assert [x, y, x + width, y + height] == ours["bbox"]
            assert ours["bbox_mode"] == BoxMode.XYXY_ABS


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="'synthetic_people_val' is registered already"):
        register_synthetic_people("synthetic_people_val", num_images=1, seed=1)
