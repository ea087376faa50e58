from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from querypose.data import QueryPoseDatasetMapper
from querypose.modeling.sparse.box_coordinates import keypoints_to_box, keypoints_to_pixels
from querypose.modeling.targets import PersonTargets
from querypose.skeleton import COCO_SKELETON, Skeleton

HEIGHT, WIDTH = 120, 200
SKELETON = Skeleton(
    ("nose", "left_hand", "right_hand", "tail"), flips=(("left_hand", "right_hand"),)
)
FLIPPED = [0, 2, 1, 3]
POINTS = [[60.5, 40.5], [41.25, 70.75], [92.5, 64.5], [77.0, 101.5]]


def _mapper(*augmentations: Any, **changes: Any) -> QueryPoseDatasetMapper:
    settings = {
        "is_train": True,
        "image_format": "RGB",
        "augmentations": list(augmentations),
        "crop_augmentations": [],
        "crop_probability": 0.0,
        "skeleton": SKELETON,
    }
    return QueryPoseDatasetMapper(**(settings | changes))


def _person(**changes: Any) -> dict[str, Any]:
    numbers = [number for x, y in POINTS for number in (x, y, 2)]
    person = {
        "bbox": [30.0, 20.0, 80.0, 90.0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
        "keypoints": numbers,
    }
    return person | changes


@pytest.fixture
def make_record(tmp_path) -> Callable[..., dict[str, Any]]:
    """``make_record(person, ...)``: a dataset's dict of a gradient image with these people."""

    def record(*people: dict[str, Any], image: Image.Image | None = None) -> dict[str, Any]:
        file = tmp_path / "image.png"
        if image is None:
            columns = np.linspace(0, 255, WIDTH, dtype=np.uint8)
            pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
            pixels[..., 0] = columns
            pixels[..., 2] = 50
            image = Image.fromarray(pixels)
        image.save(file)
        return {
            "file_name": str(file),
            "height": image.height,
            "width": image.width,
            "image_id": 5,
            "annotations": [_person()] if not people else list(people),
        }

    return record


def _back_to_pixels(instances: Instances, output_size: tuple[int, int]) -> torch.Tensor:
    """Targets to box-relative numbers, as a model learns them, and out again: (M, K, 2)."""
    target = PersonTargets.from_instances(
        instances, num_keypoints=4, num_classes=1, device=torch.device("cpu")
    )
    boxes = target.boxes + torch.tensor([-3.0, 5.0, 7.0, 1.0])
    relative = keypoints_to_box(target.keypoints[..., :2], boxes)
    pixels = keypoints_to_pixels(relative, boxes)
    found = Instances(
        instances.image_size,
        pred_boxes=Boxes(boxes),
        pred_keypoints=torch.cat([pixels, torch.ones(*pixels.shape[:2], 1)], dim=-1),
    )
    return detector_postprocess(found, *output_size).pred_keypoints[..., :2]


class TestRoundTrip:
    """Annotation -> mapper -> targets -> detections in pixels of the original image."""

    @pytest.mark.parametrize("size", [60, 97, 333])
    def test_resized(self, size, make_record):
        mapped = _mapper(T.ResizeShortestEdge((size, size), 1000))(make_record())
        assert min(mapped["image"].shape[1:]) == size
        pixels = _back_to_pixels(mapped["instances"], (HEIGHT, WIDTH))
        torch.testing.assert_close(pixels[0], torch.tensor(POINTS), rtol=0, atol=0.01)

    @pytest.mark.parametrize("size", [60, 97, 333])
    def test_flipped_and_resized(self, size, make_record):
        mapped = _mapper(T.ResizeShortestEdge((size, size), 1000), T.RandomFlip(prob=1.0))(
            make_record()
        )
        pixels = _back_to_pixels(mapped["instances"], (HEIGHT, WIDTH))[0, FLIPPED]
        pixels[:, 0] = WIDTH - pixels[:, 0]
        torch.testing.assert_close(pixels, torch.tensor(POINTS), rtol=0, atol=0.01)

    @pytest.mark.parametrize("flip", [False, True])
    def test_cropped(self, flip, make_record):
        left, top, width, height = 31, 17, 90, 95
        mapper = _mapper(
            T.ResizeShortestEdge((213, 213), 1000),
            T.RandomFlip(prob=float(flip)),
            crop_augmentations=[T.CropTransform(left, top, width, height)],
            crop_probability=1.0,
        )
        pixels = _back_to_pixels(mapper(make_record())["instances"], (height, width))[0]
        if flip:
            pixels = pixels[FLIPPED]
            pixels[:, 0] = width - pixels[:, 0]
        pixels = pixels + torch.tensor([left, top])
        torch.testing.assert_close(pixels, torch.tensor(POINTS), rtol=0, atol=0.01)

    def test_pixels_move_as_their_keypoints_do(self, make_record):
        """A white cell of the image lies under its keypoint after flip, resize and crop."""
        pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        pixels[40:50, 60:70] = 255
        keypoints = [65.0, 45.0, 2, *[10.0, 10.0, 2] * 3]
        mapper = _mapper(
            T.ResizeShortestEdge((240, 240), 1000),
            T.RandomFlip(prob=1.0),
            crop_augmentations=[T.CropTransform(5, 3, 180, 110)],
            crop_probability=1.0,
        )
        record = make_record(_person(keypoints=keypoints), image=Image.fromarray(pixels))
        mapped = mapper(record)
        x, y, _ = mapped["instances"].gt_keypoints.tensor[0, 0].tolist()
        image = mapped["image"][0].numpy().astype(float)
        rows, columns = np.indices(image.shape) + 0.5
        assert np.average(columns, weights=image) == pytest.approx(x, abs=0.05)
        assert np.average(rows, weights=image) == pytest.approx(y, abs=0.05)


class TestAnnotations:
    def test_boxes_and_visibility(self, make_record):
        keypoints = [60.5, 40.5, 2, 41.25, 70.75, 1, 92.5, 64.5, 0, 77.0, 101.5, 2]
        mapped = _mapper()(make_record(_person(keypoints=keypoints)))
        instances = mapped["instances"]
        assert instances.image_size == (HEIGHT, WIDTH)
        assert instances.gt_boxes.tensor.tolist() == [[30, 20, 110, 110]]
        assert instances.gt_classes.tolist() == [0]
        assert instances.gt_keypoints.tensor[0, :, 2].tolist() == [2, 1, 0, 2]
        assert mapped["image"].shape == (3, HEIGHT, WIDTH)
        assert mapped["image"].dtype == torch.uint8

    def test_flip_exchanges_left_and_right(self, make_record):
        keypoints = [*(60.5, 40.5, 2), *(41.25, 70.75, 1), *(92.5, 64.5, 0), *(77.0, 101.5, 2)]
        mapped = _mapper(T.RandomFlip(prob=1.0))(make_record(_person(keypoints=keypoints)))
        found = mapped["instances"].gt_keypoints.tensor[0]
        assert found[2].tolist() == pytest.approx([WIDTH - 41.25, 70.75, 1])
        assert found[1, 2] == 0
        assert found[0].tolist() == pytest.approx([WIDTH - 60.5, 40.5, 2])

    @pytest.mark.parametrize("both", [False, True])
    def test_an_image_upside_down_is_a_mirror_image_too(self, both, make_record):
        """Flipped both ways it is only turned."""
        vertical = T.RandomFlip(prob=1.0, horizontal=False, vertical=True)
        flips = [vertical, T.RandomFlip(prob=1.0)] if both else [vertical]
        found = _mapper(*flips)(make_record())["instances"].gt_keypoints.tensor[0, :, :2]
        expected = torch.tensor(POINTS)
        expected[:, 1] = HEIGHT - expected[:, 1]
        if both:
            expected[:, 0] = WIDTH - expected[:, 0]
        torch.testing.assert_close(found if both else found[FLIPPED], expected)

    def test_keypoints_outside_the_crop_become_unlabeled(self, make_record):
        mapper = _mapper(crop_augmentations=[T.CropTransform(50, 30, 60, 50)], crop_probability=1.0)
        instances = mapper(make_record())["instances"]
        # Of (60, 40), (41, 70), (92, 64), (77, 101) the crop to x 50..110, y 30..80 keeps two.
        assert instances.gt_keypoints.tensor[0, :, 2].tolist() == [2, 0, 2, 0]
        assert instances.gt_boxes.tensor.tolist() == [[0, 0, 60, 50]]

    def test_people_outside_the_crop_are_gone(self, make_record):
        mapper = _mapper(crop_augmentations=[T.CropTransform(150, 0, 40, 40)], crop_probability=1.0)
        instances = mapper(make_record())["instances"]
        assert len(instances) == 0
        target = PersonTargets.from_instances(
            instances, num_keypoints=4, num_classes=1, device=torch.device("cpu")
        )
        assert target.keypoints.shape == (0, 4, 3)

    def test_crowds_are_dropped(self, make_record):
        crowd = _person(iscrowd=1, bbox=[0.0, 0.0, 10.0, 10.0], keypoints=[0] * 12)
        instances = _mapper()(make_record(crowd, _person()))["instances"]
        assert instances.gt_boxes.tensor.tolist() == [[30, 20, 110, 110]]
        assert len(_mapper()(make_record(crowd))["instances"]) == 0

    @pytest.mark.parametrize("missing", [True, False])
    def test_a_person_without_keypoints_is_unlabeled(self, missing, make_record):
        bare = _person(keypoints=[])
        if missing:
            del bare["keypoints"]
        instances = _mapper(T.RandomFlip(prob=1.0))(make_record(bare, _person()))["instances"]
        assert instances.gt_keypoints.tensor.shape == (2, 4, 3)
        assert (instances.gt_keypoints.tensor[0] == 0).all()
        assert (instances.gt_keypoints.tensor[1, :, 2] == 2).all()

    @pytest.mark.parametrize("shape", [(12,), (4, 3)])
    def test_keypoints_may_be_an_array(self, shape, make_record):
        keypoints = np.array(_person()["keypoints"]).reshape(shape)
        bare = _person(keypoints=np.zeros(0))
        instances = _mapper()(make_record(_person(keypoints=keypoints), bare))["instances"]
        expected = torch.tensor(POINTS)
        torch.testing.assert_close(instances.gt_keypoints.tensor[0, :, :2], expected)
        assert (instances.gt_keypoints.tensor[1] == 0).all()

    def test_the_given_dict_stays_as_it_is(self, make_record):
        record = make_record(
            _person(segmentation=[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]), _person(iscrowd=1)
        )
        before = copy.deepcopy(record)
        mapped = _mapper(T.RandomFlip(prob=1.0))(record)
        assert record == before
        assert mapped["image_id"] == 5
        assert "annotations" not in mapped

    def test_inference_keeps_no_annotations(self, make_record):
        mapped = _mapper(T.ResizeShortestEdge((60, 60), 1000), is_train=False)(make_record())
        assert "instances" not in mapped
        assert "annotations" not in mapped
        assert (mapped["height"], mapped["width"]) == (HEIGHT, WIDTH)
        assert mapped["image"].shape == (3, 60, 100)

    def test_another_number_of_keypoints_is_refused(self, make_record):
        message = r"image\.png: a person has 9 keypoint numbers, not 3 x 4"
        with pytest.raises(ValueError, match=message):
            _mapper()(make_record(_person(keypoints=[1.0] * 9)))


class TestImages:
    @pytest.mark.parametrize("mode", ["L", "1", "RGBA", "P", "CMYK"])
    def test_any_kind_becomes_color(self, mode, tmp_path):
        file = tmp_path / "image.tiff"
        Image.new("RGB", (30, 20), (255, 255, 255)).convert(mode).save(file)
        mapped = _mapper()({"file_name": str(file)})
        assert mapped["image"].shape == (3, 20, 30)
        assert (mapped["image"] >= 254).all()

    @pytest.mark.parametrize(("order", "red_channel"), [("RGB", 0), ("BGR", 2)])
    def test_channel_order(self, order, red_channel, tmp_path):
        file = tmp_path / "red.png"
        Image.new("RGB", (30, 20), (255, 0, 0)).save(file)
        image = _mapper(image_format=order)({"file_name": str(file)})["image"]
        assert image[red_channel].min() == 255
        assert image.sum() == 255 * 30 * 20

    def test_rotated_by_exif(self, tmp_path):
        file = tmp_path / "turned.jpg"
        image = Image.new("RGB", (30, 20))
        image.paste((255, 255, 255), (0, 0, 15, 20))
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, exif=exif, quality=95)
        mapped = _mapper()({"file_name": str(file), "height": 30, "width": 20})
        assert mapped["image"].shape == (3, 30, 20)
        # Turned clockwise, the white left half is the upper half.
        assert mapped["image"][:, :12].min() > 200
        assert mapped["image"][:, 18:].max() < 50

    def test_a_truncated_jpeg_is_named(self, tmp_path):
        file = tmp_path / "cut.jpg"
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:1500])
        self._assert_refused(file, ValueError, r"cut\.jpg cannot be read: .*truncated")

    @pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
    def test_a_file_that_is_no_image_is_named(self, content, tmp_path):
        file = tmp_path / "words.png"
        file.write_bytes(content)
        self._assert_refused(file, ValueError, r"words\.png cannot be read")

    def test_a_missing_image_is_named(self, tmp_path):
        self._assert_refused(tmp_path / "none.jpg", FileNotFoundError, r"no image .*none\.jpg")

    @staticmethod
    def _assert_refused(file: Path, kind: type[Exception], message: str) -> None:
        with pytest.raises(kind, match=message) as error:
            _mapper()({"file_name": str(file)})
        assert "\n" not in str(error.value)
        assert str(error.value).endswith(".")
        assert str(error.value).count("Error") == 0


class TestConfig:
    CHANGES = {  # noqa: RUF012
        "INPUT.MIN_SIZE_TRAIN": (64, 96),
        "INPUT.CROP.RESIZE_MIN_SIZES": [80],
        "INPUT.CROP.SIZE": [20, 30],
        "DATASETS.TRAIN": ("test_mapper_animals",),
        "DATASETS.TEST": ("test_mapper_animals",),
    }

    @pytest.fixture(autouse=True)
    def _dataset(self):
        MetadataCatalog.get("test_mapper_animals").set(**SKELETON.metadata())
        yield
        MetadataCatalog.remove("test_mapper_animals")

    def _shapes(self, cfg, record, count: int) -> list[tuple[int, int]]:
        mapper = QueryPoseDatasetMapper(cfg, is_train=True)
        np.random.seed(0)
        return [tuple(mapper(record)["image"].shape[1:]) for _ in range(count)]

    def test_half_of_the_images_are_cropped(self, tiny_cfg, make_record):
        """A whole image has its sides 3 to 5; a crop of 20 to 30 pixels is squarer."""
        shapes = self._shapes(tiny_cfg(self.CHANGES), make_record(), 200)
        assert {min(shape) for shape in shapes} == {64, 96}
        whole = sum(abs(width / height - WIDTH / HEIGHT) < 0.02 for height, width in shapes)
        assert whole / 200 == pytest.approx(0.5, abs=0.14)

    def test_cropping_can_be_turned_off(self, tiny_cfg, make_record):
        cfg = tiny_cfg(self.CHANGES | {"INPUT.CROP.ENABLED": False})
        assert set(self._shapes(cfg, make_record(), 30)) == {(64, 107), (96, 160)}

    def test_half_of_the_images_are_flipped(self, tiny_cfg, make_record):
        cfg = tiny_cfg(self.CHANGES | {"INPUT.CROP.ENABLED": False})
        mapper = QueryPoseDatasetMapper(cfg)
        record = make_record()
        np.random.seed(0)
        images = [mapper(record)["image"][0].float() for _ in range(100)]
        flipped = sum(bool(image[:, 0].mean() > image[:, -1].mean()) for image in images)
        assert 30 <= flipped <= 70

    def test_inference_neither_crops_nor_flips(self, tiny_cfg, make_record):
        cfg = tiny_cfg(self.CHANGES | {"INPUT.MIN_SIZE_TEST": 60})
        mapper = QueryPoseDatasetMapper(cfg, is_train=False)
        images = [mapper(make_record())["image"] for _ in range(8)]
        assert images[0].shape == (3, 60, 100)
        assert all(torch.equal(image, images[0]) for image in images)
        assert images[0][0, 0, 0] < images[0][0, 0, -1]

    def test_the_keypoints_are_the_datasets(self, tiny_cfg):
        assert QueryPoseDatasetMapper(tiny_cfg(self.CHANGES)).num_keypoints == 4
        coco = QueryPoseDatasetMapper(tiny_cfg())
        assert coco.num_keypoints == 17
        assert coco.flip_indices.tolist() == [
            0,
            2,
            1,
            4,
            3,
            6,
            5,
            8,
            7,
            10,
            9,
            12,
            11,
            14,
            13,
            16,
            15,
        ]
        assert coco.flip_indices[COCO_SKELETON.keypoints.index("left_hip")] == 12

    @pytest.mark.parametrize("is_train", [True, False])
    def test_without_a_dataset_it_asks_for_one(self, is_train, tiny_cfg):
        cfg = tiny_cfg({"DATASETS.TRAIN": (), "DATASETS.TEST": ()})
        with pytest.raises(ValueError, match=r"name a dataset in DATASETS\.TRAIN, or"):
            QueryPoseDatasetMapper(cfg, is_train=is_train)

    def test_datasets_of_different_keypoints_are_refused(self, tiny_cfg):
        names = ("keypoints_coco_2017_train", "test_mapper_animals")
        with pytest.raises(ValueError, match=" and ".join(names) + " have different keypoints"):
            QueryPoseDatasetMapper(tiny_cfg({"DATASETS.TRAIN": names}))
