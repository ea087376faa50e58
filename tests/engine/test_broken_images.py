"""An image that cannot be decoded ends a training by one sentence that names it."""

from __future__ import annotations

import itertools

import pytest
from detectron2.data.samplers import TrainingSampler
from PIL import Image

from querypose.data import QueryPoseDatasetMapper
from querypose.engine.train_loader import ResumableTrainLoader
from querypose.skeleton import COCO_SKELETON


def batches(folder, num_workers):
    mapper = QueryPoseDatasetMapper(
        is_train=True,
        image_format="RGB",
        augmentations=[],
        crop_augmentations=[],
        crop_probability=0.0,
        skeleton=COCO_SKELETON,
    )
    files = [folder / "sound.png", folder / "broken.png"]
    Image.new("RGB", (8, 8)).save(files[0])
    loader = ResumableTrainLoader(
        records=[{"file_name": str(file), "annotations": []} for file in files],
        mapper=mapper,
        build_sampler=lambda seed: TrainingSampler(len(files), seed=seed),
        batch_size=2,
        num_workers=num_workers,
        seed=0,
    )
    return itertools.islice(loader, 2)


def assert_named(folder, num_workers):
    with pytest.raises(ValueError, match=r"broken\.png") as error:
        list(batches(folder, num_workers))
    last_line = str(error.value).strip().splitlines()[-1]
    assert f"The image {folder / 'broken.png'} cannot be read: " in last_line
    assert last_line.endswith("querypose-check NAME.")


def test_whatever_a_decoder_raises(failing_image, decoder_error, tmp_path):
    failing_image(tmp_path / "broken.png", decoder_error)
    assert_named(tmp_path, num_workers=0)


def test_in_a_process_of_its_own(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert_named(tmp_path, num_workers=1)
