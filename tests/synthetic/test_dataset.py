import pickle

import pytest

from querypose.synthetic import SyntheticPeople


def test_the_dataset_travels_to_worker_processes(people):
    assert pickle.loads(pickle.dumps(people)).record(1) == people.record(1)


def test_bad_arguments_are_named(people):
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        SyntheticPeople(num_images=0, seed=1)
    with pytest.raises(ValueError, match="seed of synthetic people must be at least 0, got -1"):
        SyntheticPeople(num_images=1, seed=-1)
    with pytest.raises(IndexError, match=r"Image 1000 is outside 0\.\.999"):
        people.scene(1000)


def test_records_are_the_callers_own():
    people = SyntheticPeople(num_images=1, seed=5, image_size=(192, 192))
    [first], [second] = people(), people()
    assert first == second and first["annotations"]
    first["annotations"][0]["keypoints"][0] += 1
    first["annotations"].append({})
    assert people() == [second]
