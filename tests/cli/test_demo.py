from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from querypose.cli import results, stream_writing, video
from querypose.cli.demo import main
from querypose.cli.frames import read_ahead
from querypose.cli.inputs import Input, Kind, find_inputs, image_ids
from querypose.cli.interruption import Interruption
from querypose.cli.options import DemoOptions
from querypose.cli.outputs import plan_outputs
from querypose.cli.runner import Demo
from querypose.cli.timing import Stopwatch
from querypose.cli.video import VideoReader, VideoWriter
from querypose.inference.predictor import PosePredictor

SMALL = {"INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96}


@pytest.fixture
def model(tiny_cfg, tiny_model, tmp_path):
    """The options that name a tiny model, which finds people everywhere."""
    (tmp_path / "config.yaml").write_text(tiny_cfg(SMALL).dump())
    torch.save({"model": tiny_model(SMALL).state_dict()}, tmp_path / "weights.pth")
    return [
        *("--config-file", str(tmp_path / "config.yaml")),
        *("--weights", str(tmp_path / "weights.pth")),
        *("--confidence-threshold", "0"),
        *("--keypoint-threshold", "0"),
    ]


@pytest.fixture
def predictor(model, tmp_path):
    return PosePredictor.from_config(
        tmp_path / "config.yaml", weights=tmp_path / "weights.pth", confidence_threshold=0
    )


def image(height=60, width=80, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


@pytest.fixture
def images(tmp_path):
    """A folder of three images, one of them broken, and a text file."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(image(seed=1)).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"no image")
    Image.fromarray(image(80, 60, seed=2)).save(folder / "c.png")
    (folder / "notes.txt").write_text("no image either")
    return folder


def write_video(path, num_frames, size=(60, 80), frame_rate=12.5):
    with VideoWriter(path, frame_rate) as writer:
        for index in range(num_frames):
            frame = image(*size)
            frame[:, index % size[1]] = 255
            writer.write(frame)
    return path


def read_video(path):
    """The frame rate and the frames."""
    reader = VideoReader(str(path))
    return reader.frame_rate, [frame.image for frame in reader]


def read_json(path):
    return json.loads(path.read_text()), json.loads(path.with_suffix(".coco.json").read_text())


def leftovers(folder):
    return [path for path in folder.rglob(".*") if "partial" in path.name]


def command(repository, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(
        [sys.executable, str(repository / "demo" / "demo.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": str(repository)},
    )


def test_a_file_name_that_is_no_utf_8_is_drawn_and_named(model, tmp_path, monkeypatch):
    source = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        Image.fromarray(image()).save(source)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    output = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    out = tmp_path / "out"
    assert main([str(source), "--output", str(out), *model]) == 0
    assert (out / source.name).is_file()
    assert output.buffer.getvalue().decode() == f"Written: {out}/caf\\udce9.png\n"


def test_a_folder_with_a_broken_file(repository, model, predictor, images, tmp_path):
    out, records = tmp_path / "out", tmp_path / "poses.json"
    process = command(
        repository,
        images,
        *("--output", out, "--save-json", records, "--sheet", tmp_path / "sheet.png"),
        *("--draw", "boxes,skeleton,scores,parts,attention", *model),
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"Skipped: The image {images / 'b.jpg'} cannot be read" in errors
    assert not re.search("Traceback|Warning|torch", errors)
    assert sorted(path.name for path in out.iterdir()) == [
        *("a.attention.png", "a.png", "c.attention.png", "c.png")
    ]
    drawn = np.asarray(Image.open(out / "a.png"))
    assert drawn.shape == (60, 80, 3) and (drawn != image(seed=1)).any()
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape[:2] == (300, 1600)

    plain, coco = read_json(records)
    assert plain["keypoint_names"] == list(predictor.skeleton.keypoints)
    expected_coco = []
    for frame, name, image_id in zip(plain["frames"], ("a.png", "c.png"), (1, 2), strict=True):
        found = predictor(images / name)
        place = {"image_id": image_id, "source": str(images / name)}
        assert len(found) and frame.keys() == (place | found.to_json()).keys()
        assert_close(frame, place | found.to_json())
        expected_coco += found.to_coco(image_id)
    assert_close(coco, expected_coco)


def assert_close(first, second):
    """The structures are equal, the numbers almost."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_close(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_close(*pair)
    else:
        assert first == (pytest.approx(second, abs=0.02) if isinstance(first, float) else second)


def test_ctrl_c_leaves_a_playable_video_and_the_json_so_far(repository, model, tmp_path):
    source = write_video(tmp_path / "long.mp4", 3000)
    out, records = tmp_path / "out", tmp_path / "poses.json"
    process = command(repository, source, "--output", out, "--save-json", records, *model)
    deadline = time.monotonic() + 200
    while not list(out.glob(".long.*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "Traceback" not in errors
    frame_rate, frames = read_video(out / "long.mp4")
    assert 0 < len(frames) < 3000 and frame_rate == 12.5
    plain, coco = read_json(records)
    assert len(plain["frames"]) == len(frames)
    assert {result["image_id"] for result in coco} <= set(range(1, len(frames) + 1))
    assert not leftovers(tmp_path)


def test_a_video_keeps_its_frame_rate_and_size_and_people_have_ids(
    model, predictor, tmp_path, capsys
):
    source = write_video(tmp_path / "walk.avi", 12)
    records = tmp_path / "walk.json"
    drawn = tmp_path / "drawn.mp4"
    arguments = [str(source), "--save-json", str(records), *model, "--batch-size", "4"]
    assert main([*arguments, "--output", str(drawn)]) == 0
    frame_rate, frames = read_video(drawn)
    assert (frame_rate, len(frames), frames[0].shape) == (12.5, 12, (60, 80, 3))
    progress = capsys.readouterr().err
    assert "12/12" in progress and "frame/s" in progress

    plain, coco = read_json(records)
    assert [frame["frame"] for frame in plain["frames"]] == list(range(12))
    assert [frame["time"] for frame in plain["frames"]][:3] == [0.0, 0.08, 0.16]
    _, originals = read_video(source)
    found = predictor(originals[5])
    assert_close(
        [{k: v for k, v in p.items() if k != "id"} for p in plain["frames"][5]["people"]],
        found.to_json()["people"],
    )
    ids = [{person["id"] for person in frame["people"]} for frame in plain["frames"]]
    assert len(ids[0] & ids[-1]) >= 2
    assert {result["track_id"] for result in coco} == set.union(*ids)

    assert main([*arguments, "--no-track"]) == 0
    plain, coco = read_json(records)
    assert "id" not in plain["frames"][0]["people"][0] and "track_id" not in coco[0]


def test_the_keypoint_threshold_comes_from_the_config_by_default(model, tmp_path):
    source = tmp_path / "a.png"
    Image.fromarray(image()).save(source)
    arguments = model[: model.index("--keypoint-threshold")]

    def limbs_drawn(*further: str) -> bool:
        out = tmp_path / "out.png"
        drawing = [str(source), "--output", str(out), "--draw", "skeleton", *arguments, *further]
        assert main(drawing) == 0
        return bool((np.asarray(Image.open(out)) != image()).any())

    nothing = ("--opts", "DEMO.KEYPOINT_THRESHOLD", "1.0")
    assert not limbs_drawn(*nothing)
    assert limbs_drawn("--opts", "DEMO.KEYPOINT_THRESHOLD", "0.0")
    assert limbs_drawn("--keypoint-threshold", "0", *nothing)


def test_timing_is_printed_by_step(model, tmp_path, capsys):
    source = write_video(tmp_path / "clip.mp4", 6)
    out, records = tmp_path / "out.mp4", tmp_path / "poses.json"
    start = time.perf_counter()
    arguments = [str(source), "--output", str(out), "--save-json", str(records), "--timing", *model]
    assert main(arguments) == 0
    milliseconds = (time.perf_counter() - start) * 1000
    lines = re.findall(r"^(\w.*?) {2,}([\d.]+)$", capsys.readouterr().err, re.MULTILINE)
    steps = {name: float(value) for name, value in lines}
    assert list(steps) == ["read, meanwhile", "predict", "track", "draw", "write", "record"]
    assert min(steps.values()) > 0
    assert 6 * sum(value for name, value in steps.items() if "meanwhile" not in name) < milliseconds


def test_a_stopwatch_passes_items_on_and_closes_their_source():
    ended = []

    def items():
        try:
            yield from range(5)
        finally:
            ended.append(True)

    stopwatch = Stopwatch()
    assert list(stopwatch.measure_items("all", items())) == list(range(5))
    some = stopwatch.measure_items("some", items())
    assert next(some) == 0
    some.close()
    assert len(ended) == 2 and set(stopwatch.seconds) == {"all", "some"}


def test_images_are_tracked_only_if_asked(model, tmp_path):
    for index in range(3):
        Image.fromarray(image()).save(tmp_path / f"{index:03d}.png")
    records = tmp_path / "poses.json"
    arguments = [str(tmp_path / "*.png"), "--save-json", str(records), *model]
    assert main(arguments) == 0
    plain, coco = read_json(records)
    assert "id" not in plain["frames"][0]["people"][0]
    assert [frame["image_id"] for frame in plain["frames"]] == [
        0,
        1,
        2,
    ]  # numbered, as COCO's images are
    assert {result["image_id"] for result in coco} == {0, 1, 2}
    assert main([*arguments, "--track"]) == 0
    frames = read_json(records)[0]["frames"]
    ids = [[person["id"] for person in frame["people"]] for frame in frames]
    assert ids[0] == ids[1] == ids[2]


def test_broken_videos_are_skipped_and_leave_nothing(model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"no video")
    write_video(tmp_path / "in" / "b.mp4", 3)
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), "--output", str(out), *model]) == 1
    assert f"Skipped: The video {tmp_path / 'in' / 'a.mp4'} cannot be read." in (
        capsys.readouterr().err
    )
    assert [path.name for path in out.iterdir()] == ["b.mp4"]


def test_frames_that_cannot_be_decoded_are_skipped(model, tmp_path, capsys):
    source = write_video(tmp_path / "whole.mp4", 40)
    content = bytearray(source.read_bytes())
    third, half = len(content) // 3, len(content) // 2
    content[third:half] = np.random.default_rng(0).bytes(half - third)
    (tmp_path / "damaged.mp4").write_bytes(content)
    reader = VideoReader(str(tmp_path / "damaged.mp4"))
    decoded = list(reader)
    assert reader.num_broken > 0 and decoded[-1].index == 39
    out = tmp_path / "out.mp4"
    assert main([str(tmp_path / "damaged.mp4"), "--output", str(out), *model]) == 1
    errors = capsys.readouterr().err
    assert f"{reader.num_broken} frames could not be decoded" in errors
    assert "stated length" not in errors
    # What follows a gap keeps its time.
    drawn = list(VideoReader(str(out)))
    assert drawn[-1].seconds == pytest.approx(decoded[-1].seconds, abs=0.002)


def test_a_missing_file_does_not_stop_the_others(model, images, tmp_path, capsys):
    arguments = [str(images / "a.png"), str(tmp_path / "nowhere.jpg"), "--output"]
    assert main([*arguments, str(tmp_path / "out"), *model]) == 1
    assert f"There is no file {tmp_path / 'nowhere.jpg'}." in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").is_file()


def test_stdin_lists_paths(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{images / 'c.png'}\n\n{images / 'a.png'}\n"))
    records = tmp_path / "poses.json"
    assert main(["-", "--save-json", str(records), *model]) == 0
    sources = [frame["source"] for frame in read_json(records)[0]["frames"]]
    assert sources == [str(images / "c.png"), str(images / "a.png")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name images, videos or folders"),
        (["IMAGE", "--webcam", "0", "--output", "x"], "--webcam cannot be combined with files"),
        (["nowhere.jpg", "--output", "x"], "There is no file nowhere.jpg."),
        (["*.nothing", "--output", "x"], r"Nothing matches \*.nothing."),
        (["IMAGE", "--save-json", "poses.txt"], r"poses.txt must end with .json"),
        (["IMAGE", "--sheet", "sheet.pdf"], "sheet.pdf must end with one of"),
        (["IMAGE", "--output", "none"], "no result is asked for"),
        (["", "--output", "x"], "There is no file ''."),
        (["IMAGE", "--draw", "hats", "--output", "x"], "'hats' cannot be drawn"),
        (["IMAGE", "--draw", "", "--output", "x"], "'' cannot be drawn, only boxes"),
        (["IMAGE", "--attention-person", "1", "--output", "x"], "needs --draw attention"),
        (
            ["IMAGE", "--draw", "attention", "--attention-person", "0", "--output", "x"],
            "a number from 1",
        ),
        (["IMAGE", "--draw", "attention", "--sheet", "x.png"], "name a folder with --output"),
        (
            ["--webcam", "--draw", "attention", "--output", "x"],
            "works on images only, not on the webcam 0",
        ),
        (["--webcam", "--sheet", "x.png"], "there are none among the inputs"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message, images, capsys):
    arguments = [str(images / "a.png") if word == "IMAGE" else word for word in arguments]
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--config-file", "config.yaml"])
    assert error.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_what_fails_before_the_first_image_is_reported_in_one_line(model, images, capsys, tmp_path):
    source = str(images / "a.png")
    cases = [
        ([source, "--output", str(images), *model], "a.png would replace an input"),
        ([source, "--output", "y", "--sheet", source, *model], "a.png would replace an input"),
        ([source, "--output", "y", *model, "--device", "toaster"], "'toaster' is no device"),
        ([source, "--output", "y", "--opts", "MODEL.HAT", "1"], "Non-existent key: MODEL.HAT"),
        ([source, "--output", "x.mp4", *model], "x.mp4 cannot hold a drawn image"),
        ([source, source, str(images / "c.png"), "--output", "x.png", *model], "2 inputs"),
        ([source, "--output", "x", "--config-file", "nowhere.yaml"], "no config file nowhere"),
        ([source, "--output", "x", *model, "--precision", "fp32", "--batch-size", "0"], "got 0"),
    ]
    for arguments, message in cases:
        assert main(arguments) == 2
        errors = capsys.readouterr().err
        assert message in errors and "Traceback" not in errors
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "notes"], "notes is a file, so notes/a.png cannot lie in it"),
        (["--output", "notes/drawn/"], "notes is a file"),
        (["--output", "notes/drawn.png"], "notes is a file"),
        (["--output", "occupied"], "occupied/a.png is a folder"),
        (["--save-json", "folder.json"], "folder.json is a folder"),
        (["--save-json", "poses.json"], "poses.coco.json is a folder"),
        (["--save-json", "notes/poses.json"], "notes is a file"),
        (["--sheet", "folder.png"], "folder.png is a folder"),
        (["--output", "x.png", "--sheet", "x.png"], "Two results would go to x.png"),
        (
            ["--output", "x.png", "--sheet", "x.attention.png", "--draw", "attention"],
            "Two results would go to x.attention.png",
        ),
    ],
)
def test_results_that_cannot_be_written_are_refused_before_the_work(
    arguments, message, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("precious")
    for name in ("occupied/a.png", "folder.json", "poses.coco.json", "folder.png"):
        (tmp_path / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(images / "a.png"), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_a_drawing_that_cannot_be_written_does_not_stop_the_others(model, images, tmp_path, capsys):
    # The longest side of a JPEG is 65500.
    Image.fromarray(np.zeros((1, 65_600), np.uint8)).save(images / "long.png")
    (images / "long.png").rename(images / "long.jpg")
    out, records = tmp_path / "out", tmp_path / "poses.json"
    assert main([str(images), "--output", str(out), "--save-json", str(records), *model]) == 1
    assert f"{out / 'long.jpg'} could not be written: " in capsys.readouterr().err
    assert [path.name for path in sorted(out.iterdir())] == ["a.png", "c.png"]
    assert len(read_json(records)[0]["frames"]) == 3


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_sheets_keep_to_the_longest_side_of_their_format(suffix, tmp_path):
    longest = results.longest_side(suffix)
    Image.new("RGB", (1, longest)).save(tmp_path / f"sheet{suffix}")
    with pytest.raises((OSError, ValueError)):
        Image.new("RGB", (1, longest + 1)).save(tmp_path / f"sheet{suffix}")


def test_a_sheet_keeps_to_the_longest_side(model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for index in range(14):
        Image.new("RGB", (30, 10)).save(tmp_path / "in" / f"{index}.png")
    # So that few photos are too many.
    monkeypatch.setattr(results, "_LONGEST_SIDE", 1700)
    arguments = [*model, "--confidence-threshold", "1"]
    assert main([str(tmp_path / "in"), "--sheet", str(tmp_path / "sheet.jpg"), *arguments]) == 0
    assert max(Image.open(tmp_path / "sheet.jpg").size) <= 1700


def test_results_from_before_the_memory_ran_out_are_kept(predictor, tmp_path, monkeypatch):
    for index in range(6):
        Image.fromarray(image(seed=index)).save(tmp_path / f"{index}.png")
    inputs = find_inputs([str(tmp_path / "*.png")], io.StringIO()).inputs
    predictor.batch_size = 1
    forward, calls = predictor.model.forward, []

    def runs_out_of_memory(batch):
        calls.append(batch)
        if len(calls) > 4:
            raise torch.cuda.OutOfMemoryError("no memory left")
        return forward(batch)

    monkeypatch.setattr(predictor.model, "forward", runs_out_of_memory)
    records = tmp_path / "poses.json"
    demo = Demo(predictor, DemoOptions(save_json=str(records)))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        demo.run(inputs, {})
    assert [frame["source"] for frame in read_json(records)[0]["frames"]] == [
        str(tmp_path / f"{index}.png") for index in range(4)
    ]
    calls += [None] * 4
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Demo(predictor, DemoOptions(save_json=str(tmp_path / "none.json"))).run(inputs, {})
    assert not (tmp_path / "none.json").exists()


def test_the_attention_of_one_person(model, images, tmp_path, capsys):
    def grid(*further: str) -> np.ndarray:
        arguments = [str(images / "a.png"), "--output", str(tmp_path / "out.png"), *model]
        assert main([*arguments, "--draw", "skeleton, attention", *further]) == 0
        return np.asarray(Image.open(tmp_path / "out.attention.png"))

    everybody = grid()
    first, second = (grid("--attention-person", number) for number in ("1", "2"))
    row = everybody[len(first) : len(first) + len(second), : second.shape[1]]
    assert (row == second).all()
    (tmp_path / "out.attention.png").unlink()
    with pytest.raises(FileNotFoundError):
        grid("--attention-person", "99")
    assert "there is no person 99 to draw the attention of" in capsys.readouterr().err


def test_show_without_windows_is_refused(model, images, capsys, monkeypatch):
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    monkeypatch.setenv("DISPLAY", ":0")
    assert main([str(images / "a.png"), "--show", *model]) == 2
    assert "replace opencv-python-headless by opencv-python" in capsys.readouterr().err
    monkeypatch.delenv("DISPLAY")
    if sys.platform.startswith("linux"):
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        assert main([str(images / "a.png"), "--show", *model]) == 2
        assert "--show needs a screen" in capsys.readouterr().err


def test_a_missing_webcam_is_reported(model, tmp_path, capsys):
    assert main(["--webcam", "97", "--output", str(tmp_path / "out"), *model]) == 1
    assert "The webcam 97 cannot be read." in capsys.readouterr().err


def test_drawings_never_share_a_name(tmp_path):
    assert plan_outputs(str(tmp_path), find_inputs([], ()).inputs) == {}
    # An image keeps its name, even if an earlier one would get the same.
    alike = [Input(Kind.IMAGE, name) for name in ("x.gif", "x.png", "x.attention.png")]
    targets = plan_outputs(f"{tmp_path}/", alike)
    assert [targets[item].name for item in alike] == ["x-2.png", "x.png", "x.attention.png"]
    targets = plan_outputs(f"{tmp_path}/", alike, extras=["attention"])
    assert [targets[item].name for item in alike] == ["x-2.png", "x.png", "x.attention-2.png"]
    same = [Input(Kind.IMAGE, f"{folder}/x.gif") for folder in "abc"]
    names = [path.name for path in plan_outputs(str(tmp_path), same).values()]
    assert names == ["x.png", "x-2.png", "x-3.png"]
    film = Input(Kind.VIDEO, "a/y.webm")
    camera = Input(Kind.WEBCAM, "0")
    names = [path.name for path in plan_outputs(f"{tmp_path}/", [film, camera]).values()]
    assert names == ["y.mp4", "webcam0.mp4"]
    assert plan_outputs("", [film]) == {}


def test_folders_list_media_once_and_in_order(images, tmp_path):
    write_video(images / "d.mp4", 1)
    (images / ".hidden.png").write_bytes(b"")
    found = find_inputs([str(images), str(images / "a.png")], ())
    assert [(item.kind.value, item.source[-5:]) for item in found.inputs] == [
        ("image", "a.png"),
        ("image", "b.jpg"),
        ("image", "c.png"),
        ("video", "d.mp4"),
    ]
    (images / "folder.png").mkdir()
    (images / "folder.png" / "e.png").write_bytes(b"")
    inputs = find_inputs([str(images / "*.png")], ()).inputs
    assert [item.source[-5:] for item in inputs] == ["a.png", "c.png", "e.png"]
    (tmp_path / "empty").mkdir()
    [problem] = find_inputs([str(tmp_path / "empty")], ()).problems
    assert not found.problems and "holds no images" in problem


def test_a_file_with_several_paths_is_one_input(images, tmp_path, monkeypatch):
    monkeypatch.chdir(images)
    (tmp_path / "link").symlink_to(images)
    arguments = ["a.png", str(images / "a.png"), "../images/a.png", str(tmp_path / "link")]
    sources = [item.source for item in find_inputs(arguments, ()).inputs]
    assert sources == ["a.png", *(str(tmp_path / "link" / name) for name in ("b.jpg", "c.png"))]
    # A link in a folder has a name of its own, under which its drawing is expected.
    (images / "d.png").symlink_to("a.png")
    assert len(find_inputs([str(images)], ()).inputs) == 4


def test_links_of_a_folder_that_lead_nowhere_are_named(model, tmp_path, capsys):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(image()).save(folder / "a.png")
    targets = {"b.jpg": "nowhere.jpg", "c.mp4": "nowhere.mp4", "d.png": "d.png"}
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    (folder / "further.png").symlink_to(tmp_path)
    assert main([str(folder), "--output", str(out), *model]) == 1
    errors = capsys.readouterr().err
    assert all(f"{folder / name}" in errors for name in targets) and "further" not in errors
    assert errors.count("Skipped: ") == 3
    assert [path.name for path in out.iterdir()] == ["a.png"]


def test_image_ids_count_unless_all_images_are_numbered():
    numbered = [Input(Kind.IMAGE, f"{index:012d}.jpg") for index in (139, 285)]
    assert [image_ids(numbered)(item, 5) for item in numbered] == [139, 285]
    for others in (
        [*numbered, Input(Kind.IMAGE, "x.jpg")],
        [*numbered, Input(Kind.VIDEO, "7.mp4")],
        [*numbered, Input(Kind.IMAGE, "139.png")],
    ):
        assert image_ids(others)(others[0], 5) == 6


def test_reading_ahead_keeps_order_and_raises_in_place():
    assert list(read_ahead(range(50), 4)) == list(range(50))

    def failing():
        yield 1
        yield 2
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"):
        for item in read_ahead(failing(), 3):
            seen.append(item)
    assert seen == [1, 2]


def test_reading_ahead_runs_ahead_and_stops_when_closed():
    done = []

    def items():
        try:
            for index in range(1000):
                done.append(index)
                yield index
        finally:
            done.append("closed")

    threads = threading.active_count()
    reader = read_ahead(items(), 5)
    assert next(reader) == 0
    end = time.monotonic() + 60
    while len(done) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    assert 5 <= len(done) <= 7
    reader.close()
    assert done[-1] == "closed" and len(done) <= 8
    assert threading.active_count() == threads


def test_a_video_that_fails_midway_leaves_the_previous_one(tmp_path):
    target = write_video(tmp_path / "film.mp4", 3)
    with pytest.raises(RuntimeError), VideoWriter(target, 10) as writer:
        writer.write(image())
        raise RuntimeError("the model failed")
    assert len(read_video(target)[1]) == 3 and not leftovers(tmp_path)


def test_opencv_takes_names_like_web_addresses_for_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_video(Path("12:30.mp4"), 3)
    assert len(read_video(source)[1]) == 3


def test_paths_of_videos_that_opencv_cannot_take_are_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    source = write_video(tmp_path / "film.avi", 1)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source.rename(folder / "film.avi")
    for work in (read_video, lambda path: write_video(path, 1)):
        with pytest.raises(ValueError, match=r"film\.avi is not in UTF-8, which OpenCV needs"):
            work(folder / "film.avi")
    assert len(list(folder.iterdir())) == 1


def test_without_the_codec_a_video_becomes_motion_jpeg(tmp_path, monkeypatch):
    monkeypatch.setitem(video.CODECS, ".mp4", "ZZZZ")
    write_video(tmp_path / "film.mp4", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["film.avi"]
    assert len(read_video(tmp_path / "film.avi")[1]) == 3
    monkeypatch.setitem(video.CODECS, ".avi", "ZZZZ")
    with pytest.raises(ValueError, match="no codec for the video"):
        write_video(tmp_path / "other.mp4", 3)
    assert [path.name for path in tmp_path.iterdir()] == ["film.avi"]


def test_a_video_under_another_name_is_reported(model, tmp_path, monkeypatch, capsys):
    source = write_video(tmp_path / "film.avi", 2)
    # Without PyAV, OpenCV writes videos.
    monkeypatch.setattr(stream_writing, "find_spec", lambda name: None)
    monkeypatch.setitem(video.CODECS, ".mp4", "ZZZZ")
    assert main([str(source), "--output", str(tmp_path / "out" / "film.mp4"), *model]) == 0
    written = tmp_path / "out" / "film.avi"
    assert f"the video is {written}." in capsys.readouterr().err and written.is_file()


def test_the_second_interruption_stops_at_once():
    previous = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is previous


def test_a_real_clip(model, real_data, tmp_path):
    out = tmp_path / "vtest.mp4"
    assert main([str(real_data / "videos" / "vtest_5s.mp4"), "--output", str(out), *model]) == 0
    frame_rate, frames = read_video(out)
    assert (frame_rate, len(frames), frames[0].shape) == (10.0, 50, (576, 768, 3))
