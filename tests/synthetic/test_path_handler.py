import hashlib
import subprocess
import sys

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from detectron2.utils.file_io import PathManager

from querypose.synthetic import SyntheticPeople, render


def digest(path):
    with PathManager.open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def test_an_image_depends_on_seed_and_index_alone(people):
    first = digest(people.path(3))
    assert digest(people.path(3)) == first
    assert digest(people.path(4)) != first
    assert digest(SyntheticPeople(10, 12, (320, 256)).path(3)) != first
    assert people.record(3) == people.record(3)


def test_another_process_renders_the_same_bytes_and_records(people):
    code = (
        "import hashlib, json\n"
        "from querypose.synthetic import SyntheticPeople\n"
        "from detectron2.utils.file_io import PathManager\n"
        "people = SyntheticPeople(1000, 11, (320, 256))\n"
        "print(hashlib.sha256(PathManager.open(people.path(5), 'rb').read()).hexdigest())\n"
        "print(json.dumps(people.record(5)['annotations'][0]['keypoints']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    image, keypoints = done.stdout.split("\n")[:2]
    assert image == digest(people.path(5))
    assert keypoints == str(people.record(5)["annotations"][0]["keypoints"])


def test_read_image_gives_the_rendered_pixels(people):
    image = render(people.scene(2))
    assert image.shape == (256, 320, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(read_image(people.path(2), "RGB"), image)
    np.testing.assert_array_equal(read_image(people.path(2), "BGR"), image[..., ::-1])


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
    with pytest.raises(ValueError, match=r"names no synthetic image; expected synthetic://people"):
        PathManager.open(path, "rb")


def test_paths_of_impossible_images_and_other_modes_are_refused(people):
    with pytest.raises(ValueError, match="96 to 4096 pixels wide and high, got 8x8"):
        PathManager.open("synthetic://people/1/8x8/8/0.png", "rb")
    with pytest.raises(ValueError, match="max_people must be 1 to 8, got 9"):
        PathManager.open("synthetic://people/1/128x128/9/0.png", "rb")
    with pytest.raises(ValueError, match="mode 'rb', not 'w'"):
        PathManager.open(people.path(0), "w")
    assert PathManager.isfile(people.path(0))
