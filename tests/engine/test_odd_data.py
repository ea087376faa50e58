"""Images and people as nobody wants them: training stays finite, and every parameter learns."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image

from querypose.data import register_coco_keypoints
from querypose.skeleton import COCO_SKELETON

SIZE = (96, 64)
POINTS = [[20 + 3 * i, 10 + 2 * i, 2] for i in range(17)]


def person(box=(10, 5, 60, 50), points=POINTS, **changes):
    keypoints = [float(number) for point in points for number in point]
    sound = {"bbox": list(box), "area": box[2] * box[3], "keypoints": keypoints}
    return {"category_id": 1, "iscrowd": 0, "num_keypoints": 17} | sound | changes


SCENES = {
    "nobody": [],
    "crowd_only": [person(iscrowd=1)],
    "no_area": [person((10, 5, 0, 0)), person((10, 5, 50, 0), area=0)],
    "hair_thin": [person((10, 5, 1e-3, 50))],
    "one_pixel": [person((10, 5, 1, 1))],
    "negative_size": [person((50, 50, -20, -20))],
    "outside": [person((200, 200, 30, 30))],
    "keypoints_outside": [person(points=[[x + 500, y - 300, 2] for x, y, _ in POINTS])],
    "no_keypoints": [person(points=[[0, 0, 0]] * 17, num_keypoints=0)],
    "same_person_twice": [person(), person()],
    "more_people_than_queries": [person((i, i, 30, 30)) for i in range(30)],
}


@pytest.fixture
def dataset(tmp_path):
    """A dataset of one scene."""
    names = []

    def make(people, size=SIZE):
        pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.jpg")
        people = [{"id": i + 1, "image_id": 1} | one for i, one in enumerate(people)]
        image = {"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}
        category = {"id": 1, "name": "person"}
        content = {"images": [image], "annotations": people, "categories": [category]}
        (tmp_path / "a.json").write_text(json.dumps(content))
        names.append(f"odd_{tmp_path.name}")
        register_coco_keypoints(names[0], tmp_path / "a.json", tmp_path, COCO_SKELETON)
        return names[0]

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


NAN, INF = float("nan"), float("inf")
NOT_FINITE = {
    "nan_box": [person((NAN, 5, 60, 50), area=NAN), person()],
    "infinite_box": [person((10, 5, INF, 50)), person()],
    "nan_keypoints": [person(points=[[NAN, y, 2] for _, y, _ in POINTS])],
    "infinite_keypoints": [person(points=[[x, -INF, 2] for x, *_ in POINTS])],
}


def train_two_iterations(cfg, start):
    trainer = start(cfg)
    trainer.train()
    parameters = dict(trainer.model.named_parameters())
    assert [n for n, p in parameters.items() if p.requires_grad and p.grad is None] == []
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    return trainer


OPTS = (
    *("DATASETS.TEST", "()", "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 1),
    *("DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "INPUT.CROP.ENABLED", False),
    *("MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", 0),
)


@pytest.mark.parametrize("feedback", [False, True], ids=["light", "full"])
@pytest.mark.parametrize("scene", SCENES)
def test_odd_people(dataset, tiny_config, start, scene, feedback):
    name = dataset(SCENES[scene])
    model = ("MODEL.QUERYPOSE.KEYPOINT_FEEDBACK", feedback)
    model += ("MODEL.QUERYPOSE.AUX_HEATMAP.ENABLED", True)
    train_two_iterations(tiny_config(*OPTS, *model, "DATASETS.TRAIN", (name,)), start)


@pytest.mark.parametrize("scene", NOT_FINITE)
def test_what_another_loader_lets_pass(dataset, tiny_config, start, tmp_path, scene):
    name = dataset(NOT_FINITE[scene])
    with pytest.raises(ValueError, match=r"annotation 1 has .*finite number"):
        DatasetCatalog.get(name)
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    json_file = str(tmp_path / "a.json")
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, str(tmp_path), name))
    MetadataCatalog.get(name).set(**COCO_SKELETON.metadata())
    train_two_iterations(tiny_config(*OPTS, "DATASETS.TRAIN", (name,)), start)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (400, 3), (6000, 5000)])
def test_odd_images(dataset, tiny_config, start, size):
    """From one pixel to thirty million."""
    box = (0, 0, size[0], size[1])
    name = dataset([person(box, [[size[0] / 2, size[1] / 2, 2]] * 17)], size)
    opts = ("DATASETS.TRAIN", (name,), "INPUT.MAX_SIZE_TRAIN", 256)
    train_two_iterations(tiny_config(*OPTS, *opts), start)


def test_nobody_in_the_crop(dataset, tiny_config, start):
    name = dataset([person((0, 0, 8, 8), [[4, 4, 2]] * 17)], (400, 400))
    crop = ("INPUT.SCALE_JITTER.ENABLED", True, "INPUT.SCALE_JITTER.SIZE", (64, 64))
    crop += ("INPUT.SCALE_JITTER.RANGE", (6.0, 7.0), "SEED", 2)
    trainer = train_two_iterations(tiny_config(*OPTS, *crop, "DATASETS.TRAIN", (name,)), start)
    people = [
        len(batch[0]["instances"]) for batch, _ in zip(trainer.data_loader, "ab", strict=False)
    ]
    assert people == [0, 0]


def test_an_id_that_stands_twice_is_named(dataset, tiny_config, start):
    name = dataset([person(id=7), person(id=7)])
    with pytest.raises(ValueError, match=r"annotation 7 occurs twice"):
        start(tiny_config(*OPTS, "DATASETS.TRAIN", (name,)))


def test_missing_image_ends_the_training_with_its_name(dataset, tiny_config, start, tmp_path):
    name = dataset([person()])
    trainer = start(tiny_config(*OPTS, "DATASETS.TRAIN", (name,), "DATALOADER.NUM_WORKERS", 1))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no image .*a\.jpg"):
        trainer.train()
