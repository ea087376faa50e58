import copy
import hashlib
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.detection_utils import create_keypoint_hflip_indices, read_image
from detectron2.data.transforms import RandomFlip
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util

from querypose.data.datasets.figure_renderer import (
    FigureDrawing,
    Part,
    Pose,
    View,
    capsule_polygons,
    pose_body,
    rotation_about,
    sample_appearance,
)
from querypose.data.datasets.synthetic import (
    MAX_PEOPLE,
    SyntheticPeople,
    annotate,
    label_people,
    register_synthetic_people,
    render,
)
from querypose.skeleton import COCO_SKELETON

PEOPLE = SyntheticPeople(num_images=1000, seed=11, image_size=(320, 256))
NAMES = COCO_SKELETON.keypoints


def digest(path):
    with PathManager.open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def keypoints_of(annotation):
    return np.array(annotation["keypoints"]).reshape(-1, 3)


def draw_figure(yaw, *, nod=0.0, hair_style=None):
    """An upright figure with hanging arms, 100 pixels a metre, turned by ``yaw`` degrees."""
    pose = Pose(
        torso=np.zeros(3),
        head=np.array([nod, 0.0, 0.0]),
        arms=np.tile(np.radians([0.0, 12.0, 0.0, 5.0]), (2, 1)),
        legs=np.tile(np.radians([0.0, 4.0, 5.0, 2.0]), (2, 1)),
    )
    seed = 0
    look = sample_appearance(np.random.default_rng(seed))
    while hair_style is not None and look.hair_style != hair_style:
        seed += 1
        look = sample_appearance(np.random.default_rng(seed))
    rotation = rotation_about(1, np.radians(yaw))
    light = np.array([0.0, -1.0])
    view = View(rotation, 8.0, 100.0, np.array([128.0, 128.0]), light, 0.005)
    return FigureDrawing(pose_body(pose, look), look, view)


def test_a_picture_depends_on_seed_and_index_alone():
    first = digest(PEOPLE.path(3))
    assert digest(PEOPLE.path(3)) == first
    assert digest(PEOPLE.path(4)) != first
    assert digest(SyntheticPeople(10, 12, (320, 256)).path(3)) != first
    assert PEOPLE.record(3) == PEOPLE.record(3)


def test_another_process_renders_the_same_bytes_and_records():
    code = (
        "import hashlib, json\n"
        "from querypose.data.datasets.synthetic import SyntheticPeople\n"
        "from detectron2.utils.file_io import PathManager\n"
        "people = SyntheticPeople(1000, 11, (320, 256))\n"
        "print(hashlib.sha256(PathManager.open(people.path(5), 'rb').read()).hexdigest())\n"
        "print(json.dumps(people.record(5)['annotations'][0]['keypoints']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    picture, keypoints = done.stdout.split("\n")[:2]
    assert picture == digest(PEOPLE.path(5))
    assert keypoints == str(PEOPLE.record(5)["annotations"][0]["keypoints"])


def test_read_image_gives_the_rendered_pixels():
    picture = render(PEOPLE.scene(2))
    assert picture.shape == (256, 320, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(read_image(PEOPLE.path(2), "RGB"), picture)
    np.testing.assert_array_equal(read_image(PEOPLE.path(2), "BGR"), picture[..., ::-1])


@pytest.mark.parametrize("index", range(12))
def test_visible_keypoints_lie_on_their_person_and_boxes_are_tight(index):
    scene = PEOPLE.scene(index)
    owners = label_people(scene)[0] // 16
    for annotation in annotate(scene):
        mask = mask_util.decode(annotation["segmentation"]).astype(bool)
        owner = np.unique(owners[mask])
        assert len(owner) == 1 and 1 <= owner[0] <= len(scene.people)
        np.testing.assert_array_equal(mask, owners == owner[0])
        rows, columns = np.nonzero(mask)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert annotation["bbox"] == tight
        for x, y, v in keypoints_of(annotation):
            if v == 2:
                assert mask[int(y), int(x)]
            if v > 0:
                assert 0 <= x < scene.width and 0 <= y < scene.height


def test_unlabelled_keypoints_are_those_outside_the_picture():
    outside = labelled = 0
    for index in range(40):
        scene = PEOPLE.scene(index)
        _, drawings, _ = label_people(scene)
        for annotation in annotate(scene):
            flags = keypoints_of(annotation)[:, 2]
            matching = []
            for drawing in drawings:
                points = [drawing.keypoints[name] for name in NAMES]
                inside = [0 <= p.x < 320 and 0 <= p.y < 256 for p in points]
                matching.append(inside == (flags > 0).tolist())
            assert any(matching)
            outside += (flags == 0).sum()
            labelled += (flags > 0).sum()
            unlabelled = keypoints_of(annotation)[flags == 0, :2]
            np.testing.assert_array_equal(unlabelled, 0.5)
    assert outside > 50 and labelled > 500


def test_pictures_hold_one_to_eight_people_of_all_visibilities():
    records = [PEOPLE.record(index) for index in range(150)]
    counts = {len(record["annotations"]) for record in records}
    assert min(counts) == 1 and counts <= set(range(1, MAX_PEOPLE + 1)) and len(counts) >= 6
    flags = np.concatenate(
        [keypoints_of(a)[:, 2] for record in records for a in record["annotations"]]
    )
    shares = [(flags == v).mean() for v in (0, 1, 2)]
    assert min(shares) > 0.05 and shares[2] > 0.4
    single = SyntheticPeople(20, 1, max_people=1)
    assert {len(single.record(index)["annotations"]) for index in range(20)} == {1}


@pytest.mark.parametrize(("yaw", "sign"), [(0, 1), (180, -1)])
def test_left_is_the_persons_left(yaw, sign):
    figure = draw_figure(yaw)
    for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        left, right = figure.keypoints[f"left_{part}"], figure.keypoints[f"right_{part}"]
        assert sign * (left.x - right.x) > 0


def test_the_face_shows_from_the_front_alone():
    def shown(yaw):
        keypoints = draw_figure(yaw, hair_style="bald").keypoints
        return {name for name in NAMES[:5] if keypoints[name].shown_by}

    assert shown(0) == set(NAMES[:5])
    assert shown(180) == {"left_ear", "right_ear"}
    assert shown(90) == {"nose", "right_eye", "right_ear"}


def test_a_side_view_hides_the_far_hip_behind_the_trunk():
    keypoints = draw_figure(90).keypoints
    assert Part.TORSO in keypoints["right_hip"].shown_by
    assert Part.TORSO not in keypoints["left_hip"].shown_by
    assert keypoints["left_hip"].x == pytest.approx(128.0, abs=1.0)


def test_nearer_things_are_larger():
    turned = draw_figure(90).keypoints
    centre = 128.0
    assert turned["right_shoulder"].y - centre < turned["left_shoulder"].y - centre < 0


def test_keypoints_lie_on_the_drawn_joints():
    figure = draw_figure(0)
    for side in ("left", "right"):
        knee = figure.keypoints[f"{side}_knee"]
        thigh = next(s for s in figure.shapes if s.part == Part[f"{side.upper()}_THIGH"]).polygon
        shin = [s for s in figure.shapes if s.part == Part[f"{side.upper()}_SHIN"]]
        for polygon in (thigh, shin[2].polygon):
            assert cv2.pointPolygonTest(polygon.astype(np.float32), (knee.x, knee.y), False) > 0


def test_capsule_touches_both_discs():
    polygon = capsule_polygons(
        np.array([[0.0, 0.0]]), np.array([2.0]), np.array([[10.0, 0.0]]), np.array([1.0])
    )[0]
    assert polygon[:, 0].min() == pytest.approx(-2.0)
    assert polygon[:, 0].max() == pytest.approx(11.0)
    # The tangent points of a tapered capsule: radius times (cos, sin) of acos((2 - 1) / 10).
    height = np.sqrt(1 - 0.1**2)
    for corner in ((0.2, 2 * height), (10.1, height), (0.2, -2 * height), (10.1, -height)):
        assert np.abs(polygon - corner).sum(axis=1).min() < 1e-9


def test_capsule_of_nested_discs_is_the_larger_disc():
    polygon = capsule_polygons(
        np.array([[0.0, 0.0]]), np.array([5.0]), np.array([[1.0, 0.0]]), np.array([1.0])
    )[0]
    assert np.hypot(*polygon.T).max() == pytest.approx(5.0)
    assert cv2.contourArea(polygon.astype(np.float32)) > 0.8 * np.pi * 25


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


def test_tiny_records_feed_detectron2s_mapper():
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


def test_the_dataset_travels_to_worker_processes():
    assert pickle.loads(pickle.dumps(PEOPLE)).record(1) == PEOPLE.record(1)


def as_predictions(record):
    instances = Instances((record["height"], record["width"]))
    people = record["annotations"]
    instances.pred_boxes = Boxes(torch.tensor([a["bbox"] for a in people]))
    instances.scores = torch.ones(len(people))
    instances.pred_classes = torch.zeros(len(people), dtype=torch.int64)
    keypoints = torch.tensor(np.stack([keypoints_of(a) for a in people]), dtype=torch.float32)
    instances.pred_keypoints = keypoints
    return {"instances": instances}


def test_ground_truth_as_predictions_scores_full_ap(tmp_path):
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
    evaluator.process(records, [as_predictions(record) for record in records])
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
            assert theirs["area"] == mask_util.decode(ours["segmentation"]).sum()
            x, y, width, height = theirs["bbox"]
            assert [x, y, x + width, y + height] == ours["bbox"]
            assert ours["bbox_mode"] == BoxMode.XYXY_ABS


@pytest.mark.parametrize(
    "path",
    [
        "synthetic://people/1/384x384/8/x.png",
        "synthetic://cats/1/384x384/8/0.png",
        "synthetic://people/1/384/8/0.png",
    ],
)
def test_a_malformed_path_is_named(path):
    assert not PathManager.exists(path)
    with pytest.raises(
        ValueError, match=r"names no synthetic picture; expected synthetic://people"
    ):
        PathManager.open(path, "rb")


def test_paths_of_impossible_pictures_and_other_modes_are_refused():
    with pytest.raises(ValueError, match="96 to 4096 pixels wide and high, got 8x8"):
        PathManager.open("synthetic://people/1/8x8/8/0.png", "rb")
    with pytest.raises(ValueError, match="max_people must be 1 to 8, got 9"):
        PathManager.open("synthetic://people/1/128x128/9/0.png", "rb")
    with pytest.raises(ValueError, match="mode 'rb', not 'w'"):
        PathManager.open(PEOPLE.path(0), "w")
    assert PathManager.isfile(PEOPLE.path(0))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        SyntheticPeople(num_images=0, seed=1)
    with pytest.raises(ValueError, match="seed of synthetic people must be at least 0, got -1"):
        SyntheticPeople(num_images=1, seed=-1)
    with pytest.raises(ValueError, match="'synthetic_people_val' is registered already"):
        register_synthetic_people("synthetic_people_val", num_images=1, seed=1)
    with pytest.raises(IndexError, match=r"Picture 1000 is outside 0\.\.999"):
        PEOPLE.scene(1000)
