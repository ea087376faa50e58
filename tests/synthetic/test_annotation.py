import numpy as np
import pytest
from pycocotools import mask as mask_util

from querypose.skeleton import COCO_SKELETON
from querypose.synthetic import MAX_PEOPLE, SyntheticPeople, annotate
from querypose.synthetic.labels import LABELS_PER_PERSON, label_people

NAMES = COCO_SKELETON.keypoints


@pytest.mark.parametrize("index", range(12))
def test_visible_keypoints_lie_on_their_person_and_boxes_are_tight(people, index, keypoints_of):
    scene = people.scene(index)
    owners = label_people(scene)[0] // LABELS_PER_PERSON
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


def test_unlabeled_keypoints_are_those_outside_the_image(people, keypoints_of):
    outside = labeled = 0
    for index in range(40):
        scene = people.scene(index)
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
            labeled += (flags > 0).sum()
            unlabeled = keypoints_of(annotation)[flags == 0, :2]
            np.testing.assert_array_equal(unlabeled, 0.5)
    assert outside > 50 and labeled > 500


def test_images_hold_one_to_eight_people_of_all_visibilities(people, keypoints_of):
    records = [people.record(index) for index in range(150)]
    counts = {len(record["annotations"]) for record in records}
    assert min(counts) == 1 and counts <= set(range(1, MAX_PEOPLE + 1)) and len(counts) >= 6
    flags = np.concatenate(
        [keypoints_of(a)[:, 2] for record in records for a in record["annotations"]]
    )
    shares = [(flags == v).mean() for v in (0, 1, 2)]
    assert min(shares) > 0.05 and shares[2] > 0.4
    single = SyntheticPeople(20, 1, max_people=1)
    assert {len(single.record(index)["annotations"]) for index in range(20)} == {1}
