from __future__ import annotations

import json
import struct

import pytest
from PIL import Image, ImageOps

from querypose.data import register_coco_keypoints
from querypose.skeleton import COCO_SKELETON
from querypose.tools import check_dataset


@pytest.fixture
def dataset(tmp_path):
    """A dataset of two intact images and, between them, ``damaged.png``."""
    names = ["a.png", "damaged.png", "z.png"]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    images = [
        {"id": index, "file_name": name, "width": 8, "height": 8}
        for index, name in enumerate(names)
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "people.json").write_text(json.dumps(content))
    name = f"damaged_{tmp_path.name}"
    register_coco_keypoints(name, tmp_path / "people.json", tmp_path, COCO_SKELETON)
    return name


def test_any_error_of_a_decoder_is_one_problem(failing_image, decoder_error, dataset, tmp_path):
    file = failing_image(tmp_path / "damaged.png", decoder_error)
    problems = check_dataset.find_problems(dataset)
    assert problems.keys() == {str(file)}
    [fault] = problems[str(file)]
    assert fault.startswith(f"cannot be used: The image {file} cannot be read: ")


def test_broken_exif_is_no_problem(dataset, tmp_path):
    orientation = struct.pack("<HHLHH", 0x0112, 3, 1, 3, 0)
    resolution = struct.pack("<HHLL", 0x011A, 10, 1, 38)
    table = struct.pack("<H", 2) + orientation + resolution + bytes(4)
    exif = b"II*\0\x08\0\0\0" + table + struct.pack("<ll", -1, 0)
    Image.new("RGB", (8, 8)).save(tmp_path / "damaged.png", exif=exif)
    with Image.open(tmp_path / "damaged.png") as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert check_dataset.find_problems(dataset) == {}
