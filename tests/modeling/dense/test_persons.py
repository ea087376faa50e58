import pytest
import torch
from detectron2.structures import Instances, Keypoints

from querypose.modeling.dense.persons import LabeledPersons, padded_ignore_masks


def persons_of(keypoints, areas, image_size=(64, 48), num_keypoints=3):
    instances = Instances(image_size)
    instances.gt_keypoints = Keypoints(torch.tensor(keypoints))
    instances.gt_areas = torch.tensor(areas)
    return LabeledPersons.from_instances(
        instances, num_keypoints=num_keypoints, area_field="gt_areas", device=torch.device("cpu")
    )


def test_keypoints_outside_the_image_are_labeled_but_not_in_the_map():
    persons = persons_of([[[20.5, 40.5, 2], [-8.0, 4.5, 1], [9.0, 9.0, 0]]], [1000.0])
    assert persons.size == (16, 12)
    assert persons.keypoints[0, 0].tolist() == [5, 10]
    assert persons.labeled.tolist() == [[True, True, False]]
    assert persons.in_map.tolist() == [[True, False, False]]


def test_centers_are_means_of_labeled_keypoints_alone():
    persons = persons_of(
        [[[20.5, 40.5, 2], [-7.5, 4.5, 1], [9.0, 9.0, 0]], [[1.0, 1.0, 0]] * 3], [1000.0, 10.0]
    )
    centers, present = persons.centers(torch.tensor([True, True, True]))
    assert centers[0].tolist() == [1.5, 5.5]
    assert present.tolist() == [True, False]
    assert persons.centers(torch.tensor([True, False, True]))[0][0].tolist() == [5, 10]


def test_images_without_persons_need_no_fields():
    persons = LabeledPersons.from_instances(
        Instances((64, 48)), num_keypoints=3, area_field="gt_areas", device=torch.device("cpu")
    )
    assert persons.keypoints.shape == (0, 3, 2) and len(persons.areas) == 0


def test_unfitting_data_are_named():
    with pytest.raises(ValueError, match="3 keypoints per person, the model has 5"):
        persons_of([[[1.0, 1.0, 2]] * 3], [10.0], num_keypoints=5)
    instances = Instances((64, 48), gt_keypoints=Keypoints(torch.zeros(1, 3, 3)))
    with pytest.raises(ValueError, match="no gt_box_areas"):
        LabeledPersons.from_instances(
            instances, num_keypoints=3, area_field="gt_box_areas", device=torch.device("cpu")
        )


def test_ignore_masks_are_padded_with_zeros():
    inputs = [
        {"image": torch.zeros(3, 16, 16), "ignore_mask": torch.ones(4, 4)},
        {"image": torch.zeros(3, 8, 12)},
    ]
    masks = padded_ignore_masks(inputs, (8, 8), torch.device("cpu"))
    assert masks.shape == (2, 8, 8)
    assert masks[0].sum() == 16 and masks[1].sum() == 6
    inputs[0] |= {"ignore_mask": torch.ones(3, 4), "file_name": "street.jpg"}
    with pytest.raises(ValueError, match="street"):
        padded_ignore_masks(inputs, (8, 8), torch.device("cpu"))
