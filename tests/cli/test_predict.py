"""``querypose-predict``: collections of every kind, broken images, and what must not change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from querypose.cli.collection import find_collection
from querypose.cli.predict import main
from querypose.cli.shards import ShardFolder
from querypose.inference.predictor import PosePredictor
from querypose.skeleton import COCO_SKELETON


def write_images(folder: Path, names: list[str]) -> None:
    random = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)).save(path)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture
def photos(tmp_path) -> Path:
    write_images(tmp_path / "photos", ["b.png", "a/2.png", "a/1.png", ".hidden/3.png", "c.jpg"])
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def predict(tiny_arguments, tmp_path) -> Callable[..., Path]:
    """``predict(collection, ...)``: the folder of the output."""

    def run(collection: object, *arguments: object, output: str = "predicted") -> Path:
        folder = tmp_path / output
        fixed = ("--output", folder, "--confidence-threshold", 0, "--device", "cpu")
        main([*map(str, (collection, *fixed, *arguments)), *tiny_arguments])
        return folder

    return run


def test_a_folder_gives_what_the_predictor_gives(predict, photos, tiny_arguments, capsys):
    output = predict(photos, "--shard-size", 3)
    names = ["b.png", "c.jpg", "a/1.png", "a/2.png"]
    assert read(output, "images") == [
        {"id": number, "file_name": name} for number, name in enumerate(names, start=1)
    ]
    _, config, _, weights = tiny_arguments
    predictor = PosePredictor.from_config(
        config, weights=weights, confidence_threshold=0.0, device="cpu"
    )
    expected = [
        row
        for number, name in enumerate(names, start=1)
        for row in predictor(photos / name).to_coco(number)
    ]
    assert read(output, "results") == expected
    assert len(expected) > 4
    assert read(output, "skipped") == []
    assert sorted(path.name for path in (output / "shards").iterdir()) == [
        "00000.json",
        "00001.json",
    ]
    assert f"{len(expected)} people in 4 images" in capsys.readouterr().out


def test_numbered_images_keep_their_number(predict, tmp_path):
    write_images(tmp_path / "coco", ["000000000139.png", "000000000007.png"])
    images = read(predict(tmp_path / "coco"), "images")
    assert [image["id"] for image in images] == [7, 139]


def test_lists_and_label_files_name_images(predict, photos, tmp_path):
    everything = read(predict(photos), "results")
    of_b = [row for row in everything if row["image_id"] == 1]
    listed = tmp_path / "list.txt"
    listed.write_text("a/1.png\n\nb.png\nb.png\n")
    rows = read(predict(listed, "--image-root", photos, output="listed"), "results")
    assert [row | {"image_id": 1} for row in rows if row["image_id"] == 2] == of_b
    labels = photos / "test.json"
    labels.write_text(json.dumps({"images": [{"id": "the b", "file_name": "b.png"}]}))
    rows = read(predict(labels, output="labeled"), "results")
    assert rows == [row | {"image_id": "the b"} for row in of_b]


def test_a_registered_dataset(predict, register_labels, label_content, capsys):
    name = register_labels(label_content())
    output = predict(name)
    files = f"{MetadataCatalog.get(name).json_file} {output / 'results.json'}"
    assert f"Evaluate: python -m querypose.evaluation {files}\n" in capsys.readouterr().out
    assert read(output, "images") == [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)]
    assert {row["image_id"] for row in read(output, "results")} == {1, 2}


def test_broken_and_absent_images_are_named_and_left_out(predict, photos, tmp_path, capsys):
    (photos / "a" / "2.png").write_bytes(b"nothing")
    listed = tmp_path / "list.txt"
    listed.write_text("a/1.png\na/2.png\nnowhere.png\nb.png\n")
    output = predict(listed, "--image-root", photos)
    assert {row["image_id"] for row in read(output, "results")} == {1, 4}
    skipped = {row["image_id"]: row for row in read(output, "skipped")}
    assert [row["file_name"] for row in skipped.values()] == ["a/2.png", "nowhere.png"]
    assert skipped[2]["error"].endswith("2.png cannot be read: it is empty or in no known format.")
    error = capsys.readouterr().err
    assert skipped[3]["error"] in error
    assert f"Skipped images: 2, see {output / 'skipped.json'}." in error


def test_only_what_is_missing_is_predicted_again(predict, photos):
    output = predict(photos, "--shard-size", 1)
    complete = (output / "results.json").read_bytes()
    first, second, *_ = sorted((output / "shards").iterdir())
    kept = first.stat().st_mtime_ns
    second.unlink()
    (output / "results.json").unlink()
    predict(photos, "--shard-size", 1)
    assert (output / "results.json").read_bytes() == complete
    assert first.stat().st_mtime_ns == kept and second.is_file()


def test_a_complete_output_is_left_as_it_is(predict, photos, capsys):
    output = predict(photos)
    before = (output / "results.json").stat().st_mtime_ns
    predict(photos)
    assert (output / "results.json").stat().st_mtime_ns == before
    assert "results.json is complete already." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shard-size", 5), "--shard-size is 5, but was 100; set it back to continue, or name"),
        (("--precision", "bf16"), "--precision is 'bf16', but was 'fp32'"),
        (("--confidence-threshold", 0.5), "--confidence-threshold is 0.5, but was 0.0"),
        (("--opts", "TEST.DETECTIONS_PER_IMAGE", 3), "TEST.DETECTIONS_PER_IMAGE is 3, but was"),
    ],
)
def test_other_settings_are_refused(predict, photos, tiny_arguments, arguments, message):
    output = predict(photos)
    command = (photos, "--output", output, "--confidence-threshold", 0, "--device", "cpu")
    with pytest.raises(SystemExit) as end:
        main([*map(str, command), *tiny_arguments, *map(str, arguments)])
    assert message in end.value.code
    assert end.value.code.startswith("querypose-predict: ") and "\n" not in end.value.code


def test_other_weights_and_other_images_are_refused(predict, photos, tmp_path):
    predict(photos, "--batch-size", 2)
    write_images(photos, ["d.png"])
    with pytest.raises(SystemExit, match=r"collection is '5 images, .*', but was '4 images, "):
        predict(photos)
    (photos / "d.png").unlink()
    content = torch.load(tmp_path / ".tiny.pth", weights_only=True)
    next(iter(content["model"].values())).mul_(2)
    torch.save(content, tmp_path / ".tiny.pth")
    with pytest.raises(SystemExit, match=r"content of the weights is '.*', but was"):
        predict(photos)


@pytest.mark.parametrize("name", ["results.json", "shards/00000.json"])
def test_results_of_something_else_are_not_taken_for_finished(predict, photos, tmp_path, name):
    foreign = tmp_path / "predicted" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[]")
    with pytest.raises(SystemExit, match="holds results of something else: name another --output"):
        predict(photos)


def test_frames_of_another_video_are_other_images(predict, photos, tmp_path):
    predict(photos)
    other = shutil.copytree(photos, tmp_path / "other")
    assert predict(other) == tmp_path / "predicted"
    write_images(other, ["c.jpg", "b.png"])
    with pytest.raises(SystemExit, match=r"collection is '4 images, .*', but was '4 images, "):
        predict(other)


@pytest.mark.parametrize("registered", [False, True])
def test_label_files_are_not_replaced(
    write_labels, label_content, tiny_arguments, temporary_datasets, capsys, registered
):
    labels = write_labels(label_content(COCO_SKELETON.keypoints), "images.json")
    before = labels.read_text()
    name = f"labels_of_{labels.parent.name}"
    if registered:
        temporary_datasets.append(name)
    options = ("DATASETS.REGISTER", f"[['{name}', '{labels}', '{labels.parent}']]")
    command = (name if registered else str(labels), "--output", str(labels.parent))
    with pytest.raises(SystemExit) as end:
        main([*command, *tiny_arguments, "--opts", *options])
    error = f"{end.value.code} {capsys.readouterr().err}"
    assert "images.json would replace an input: name another output." in error
    assert labels.read_text() == before


def test_a_photo_is_no_list(predict, photos):
    with pytest.raises(SystemExit, match=r"c\.jpg is no list of images: name a folder, or a text"):
        predict(photos / "c.jpg")


def test_aliases_of_a_folder_add_nothing(tmp_path):
    write_images(tmp_path, ["photos/run3/x.png", "photos/a.png", "private/secret.png"])
    (tmp_path / "photos" / "latest").symlink_to("run3")
    (tmp_path / "photos" / "up").symlink_to("..")
    collection = find_collection(str(tmp_path / "photos"), None)
    assert [image.file_name for image in collection.images] == ["a.png", "run3/x.png"]
    (tmp_path / "link").symlink_to("photos")
    assert len(find_collection(str(tmp_path / "link"), None).images) == 2


def test_a_link_shows_what_is_hidden_otherwise(tmp_path):
    """As in volumes of containers, whose files change at once with such a link."""
    write_images(tmp_path, ["photos/..2024/a.png", "photos/b.png"])
    (tmp_path / "photos" / "current").symlink_to("..2024")
    collection = find_collection(str(tmp_path / "photos"), None)
    assert [image.file_name for image in collection.images] == ["b.png", "current/a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="a folder that root cannot read is hard to make")
def test_folders_of_the_system_are_passed_over(tmp_path, capsys):
    write_images(tmp_path, ["photos/a.png", "photos/lost+found/b.png"])
    (tmp_path / "photos" / "lost+found").chmod(0)
    collection = find_collection(str(tmp_path / "photos"), None)
    assert [image.file_name for image in collection.images] == ["a.png"]
    assert "Passed over: " in capsys.readouterr().err


def test_folders_behind_links_belong_to_a_folder(tmp_path):
    write_images(tmp_path, ["photos/a.png", "elsewhere/b.png"])
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    collection = find_collection(str(tmp_path / "photos"), None)
    assert [image.file_name for image in collection.images] == ["a.png", "link/b.png"]


def test_shards_that_lie_on_another_machine(tmp_path):
    folder = ShardFolder(tmp_path, num_images=250, shard_size=100)
    assert folder.slice_of(2) == slice(200, 250)
    folder.write(1, [], [])
    assert folder.missing() == [0, 2]
    with pytest.raises(ValueError, match=r"2 shards are missing, .*00000.json among them"):
        folder.merge([])


def test_a_damaged_shard_is_named(tmp_path):
    folder = ShardFolder(tmp_path, num_images=1, shard_size=1)
    folder.write(0, [], [])
    (tmp_path / "shards" / "00000.json").write_text("[")
    with pytest.raises(ValueError, match=r"00000.json is no shard: delete it"):
        folder.merge([])
    assert not folder.is_merged


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no list of images"),
        ('{"images": [{"id": 1}]}', "has an image without id or file_name: {'id': 1}"),
        ('{"images": [{"id": 1, "file_name": "gone.png"}]}', "gone.png: name the folder of the im"),
        ('{"images": [{"id": 1, "file_name": "b.png"}, {"id": 1, "file_name": "c.jpg"}]}', "twice"),
        ("{", "is not valid JSON"),
    ],
)
def test_label_files_that_name_no_images(predict, photos, content, message):
    (photos / "labels.json").write_text(content)
    with pytest.raises(SystemExit) as end:
        predict(photos / "labels.json")
    assert message in end.value.code and "\n" not in end.value.code


def test_sources_without_images(predict, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for source, message in (
        (tmp_path / "empty", r"The folder .* holds no images\."),
        (tmp_path / "empty.txt", r"The list .* is empty\."),
        ("nowhere", r"no file or folder nowhere, and no dataset is registered by this name"),
    ):
        with pytest.raises(SystemExit, match=message):
            predict(source)


def test_wrong_arguments_are_refused_before_pytorch_is_loaded(repository, photos, tmp_path):
    script = tmp_path / "querypose-predict"
    script.write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: print('LOADED', 'torch' in sys.modules))\n"
        "from querypose.cli.predict import main\n"
        "main()\n"
    )

    wrong = subprocess.run(
        [sys.executable, str(script), str(photos), "--output", str(photos / "b.png")],
        env={"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "b.png is a file, so" in wrong.stderr
    assert wrong.stdout == "LOADED False\n"
