"""What a checkpoint says of its model."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from querypose import PosePredictor, model_zoo
from querypose.checkpoint import ModelDescription, QueryPoseCheckpointer, read_description
from querypose.skeleton import COCO_SKELETON, Skeleton
from querypose.tools.export_weights import main as export_weights

HORSE = Skeleton(("nose", "2", "10"), flips=(("2", "10"),), edges=(("nose", "2"),))
DESCRIPTION = ModelDescription('{"VERSION": 2}', HORSE, (18, "foal"))


@pytest.mark.parametrize("skeleton", [HORSE, COCO_SKELETON, None])
def test_a_saved_file_says_what_the_checkpointer_was_given(skeleton, small_model, tmp_path):
    description = ModelDescription("{}", skeleton, (1,), ("foal",))
    QueryPoseCheckpointer(small_model(), str(tmp_path), description=description).save("model")
    assert read_description(tmp_path / "model.pth") == description


def test_a_file_of_an_earlier_version_does_not_name_classes(tmp_path):
    fields = DESCRIPTION.fields()
    del fields["description"]["class_names"]
    torch.save({"model": {}, **fields}, tmp_path / "old.pth")
    assert read_description(tmp_path / "old.pth") == DESCRIPTION


def test_the_weights_are_not_read(tmp_path):
    """Which would take long for a checkpoint with an optimizer's state."""
    path = tmp_path / "large.pth"
    torch.save({"model": {"a": torch.zeros(1_000_000)}, **DESCRIPTION.fields()}, path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert read_description(path) == DESCRIPTION


def test_files_that_say_nothing(tmp_path):
    weights = {"a": torch.zeros(3)}
    torch.save(weights, tmp_path / "plain.pth")
    torch.save({"model": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "some.safetensors")
    for name in ("plain.pth", "old.pth", "some.safetensors"):
        assert read_description(tmp_path / name) is None


@pytest.mark.parametrize(
    "description",
    [
        3,
        {"config": "{}"},
        {"config": "{}", "skeleton": {"keypoints": 5}, "category_ids": []},
        {"config": "{}", "skeleton": {"keypoints": ["a", "a"]}, "category_ids": []},
        {"config": "{}", "skeleton": None, "category_ids": 7},
    ],
)
def test_a_wrong_description_is_refused(description, tmp_path):
    torch.save({"model": {}, "description": description}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth describes its model wrongly"):
        read_description(tmp_path / "odd.pth")


def test_an_exported_file_says_the_same(tmp_path, monkeypatch):
    weights = {"a": torch.full((3,), 0.5)}
    torch.save({"model": weights, "optimizer": {}, **DESCRIPTION.fields()}, tmp_path / "in.pth")
    monkeypatch.setattr(
        sys, "argv", ["export_weights", str(tmp_path / "in.pth"), str(tmp_path / "out.pth")]
    )
    export_weights()
    exported = torch.load(tmp_path / "out.pth", weights_only=True)
    assert exported.keys() == {"model", "description"}
    assert read_description(tmp_path / "out.pth") == DESCRIPTION


def test_export_adds_what_an_older_file_does_not_say(tmp_path):
    """Such as the packaged weights, which then need no config."""
    exported = tmp_path / "described.pth"
    arguments = [model_zoo.get_config().MODEL.WEIGHTS, str(exported), "--config-file", "lite0"]
    export_weights(arguments)
    predictor = PosePredictor(exported, confidence_threshold=0)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    expected = PosePredictor(confidence_threshold=0)(image)
    assert predictor.min_size == 384
    np.testing.assert_array_equal(predictor(image).keypoints, expected.keypoints)
