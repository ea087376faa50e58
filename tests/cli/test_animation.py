from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, features

from querypose.cli.animation import AnimationReader
from querypose.cli.formats import Kind, detect_kind
from querypose.cli.gif import GifWriter
from querypose.cli.video import VideoReader

DURATIONS = [100, 200, 300, 50, 400]
TIMES = [0, 0.1, 0.3, 0.6, 0.65]
SUFFIXES = [".gif", ".png", ".apng", ".webp", *[".avif"] * features.check("avif")]


@pytest.fixture
def write_animation(frame_of):
    def write(path, num_frames=5, **options):
        frames = [Image.fromarray(frame_of(index)) for index in range(num_frames)]
        options = {"duration": DURATIONS[:num_frames]} | options
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        return path

    return write


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_have_the_times_of_the_animation(
    suffix, write_animation, run_demo, number_of, tmp_path, capsys
):
    source = write_animation(tmp_path / f"wave{suffix}")
    status, frames = run_demo(source, "--output", tmp_path / "out", "--confidence-threshold", "1")
    assert status == 0 and "querypose-demo:" not in capsys.readouterr().err
    assert [frame["time"] for frame in frames] == pytest.approx(TIMES)
    assert [frame["frame"] for frame in frames] == list(range(5))
    if suffix == ".gif":
        drawn = list(AnimationReader(str(tmp_path / "out" / "wave.gif")))
        assert [frame.duration for frame in drawn] == pytest.approx(np.array(DURATIONS) / 1000)
    else:
        drawn = list(VideoReader(str(tmp_path / "out" / "wave.mp4")))
    numbers = {round(frame.seconds, 2): number_of(frame.image) for frame in drawn}
    assert [numbers[seconds] for seconds in TIMES] == [0, 1, 2, 3, 4]
    assert len(drawn) == 5 or len(drawn) == 21


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_the_name_of_the_output_chooses_its_format(
    suffix, write_animation, run_demo, number_of, tmp_path
):
    source, drawn = write_animation(tmp_path / "wave.webp"), tmp_path / f"drawn{suffix}"
    assert run_demo(source, "--output", drawn, "--confidence-threshold", "1")[0] == 0
    reader = AnimationReader if suffix == ".gif" else VideoReader
    frames = {round(frame.seconds, 2): frame.image for frame in reader(str(drawn))}
    assert [number_of(frames[seconds]) for seconds in TIMES] == [0, 1, 2, 3, 4]


def test_a_video_becomes_a_gif(write_matroska, run_demo, number_of, tmp_path):
    times = [0, 0.1, 0.4, 0.42]
    source, drawn = write_matroska(tmp_path / "film.mkv", times), tmp_path / "drawn.gif"
    assert run_demo(source, "--output", drawn, "--confidence-threshold", "1")[0] == 0
    frames = list(AnimationReader(str(drawn)))
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.4, 0.42])


@pytest.mark.parametrize(("frame_rate", "num_lost"), [(60, 20), (120, 70)])
def test_a_gif_of_a_fast_video_is_as_long_as_the_video(
    frame_rate, num_lost, number_of, frame_of, tmp_path
):
    with GifWriter(tmp_path / "drawn.gif") as writer:
        for index in range(frame_rate):
            writer.write(frame_of(20 * index // frame_rate), index / frame_rate)
    frames = list(AnimationReader(str(tmp_path / "drawn.gif")))
    # Browsers slow down frames that are shown for less than two hundredths of a second.
    assert min(frame.duration for frame in frames) >= 0.02
    assert frames[-1].seconds + frames[-1].duration == pytest.approx(1, abs=0.01)
    for frame in frames:
        assert number_of(frame.image) == pytest.approx(20 * frame.seconds, abs=1.01)
    [sentence] = writer.changes()
    assert f"drawn.gif lacks {num_lost} of the frames: at 50 frames a second" in sentence


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame_is_an_image(suffix, write_animation, tmp_path):
    source = write_animation(tmp_path / f"still{suffix}", num_frames=1)
    assert detect_kind(source) == (Kind.IMAGE, "")


def test_people_are_tracked_from_frame_to_frame(write_animation, run_demo, tmp_path):
    source = write_animation(tmp_path / "wave.gif")
    _, frames = run_demo(source, "--confidence-threshold", "0")
    ids = [{person["id"] for person in frame["people"]} for frame in frames]
    assert ids[0] & ids[-1]


def test_the_default_image_is_not_a_frame(write_animation, number_of, tmp_path):
    source = write_animation(tmp_path / "wave.png", default_image=True)
    reader = AnimationReader(str(source))
    frames = list(reader)
    assert [number_of(frame.image) for frame in frames] == [1, 2, 3, 4] and reader.num_frames == 4
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.6])


def test_frames_without_a_duration_last_as_long_as_in_browsers(frame_of, tmp_path):
    frames = [Image.fromarray(frame_of(index)) for index in range(3)]
    frames[0].save(tmp_path / "wave.gif", save_all=True, append_images=frames[1:])
    reader = AnimationReader(str(tmp_path / "wave.gif"))
    assert [frame.seconds for frame in reader] == pytest.approx([0, 0.1, 0.2])
    assert reader.frame_rate == 10


def test_frames_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], exif=exif)
    shapes = [frame.image.shape for frame in AnimationReader(str(tmp_path / "a.webp"))]
    assert shapes == [(30, 20, 3)] * 2


def test_a_damaged_frame_ends_only_its_animation(write_animation, run_demo, tmp_path, capsys):
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(4)]
    file = tmp_path / "in" / "a.png"
    file.parent.mkdir()
    noise[0].save(file, save_all=True, append_images=noise[1:], duration=100)
    content = file.read_bytes()
    file.write_bytes(content[: 5 * len(content) // 8])
    write_animation(tmp_path / "in" / "b.gif")
    status, frames = run_demo(tmp_path / "in")
    assert status == 1
    errors = capsys.readouterr().err
    num_broken = 4 - sum(frame["source"].endswith("a.png") for frame in frames)
    assert 1 <= num_broken <= 3
    assert f"a.png: {num_broken} frames could not be decoded." in errors
    assert sum(frame["source"].endswith("b.gif") for frame in frames) == 5


def test_only_the_first_of_several_pages_is_used(write_animation, run_demo, tmp_path, capsys):
    source = write_animation(tmp_path / "scan.tif")
    status, [frame] = run_demo(source)
    assert status == 0 and "time" not in frame
    assert f"{source}: only the first of its 5 images is used." in capsys.readouterr().err


def test_a_photo_with_a_preview_is_not_an_animation(write_animation, tmp_path):
    source = write_animation(tmp_path / "photo.jpg", num_frames=2, format="MPO")
    with Image.open(source) as image:
        assert image.format == "MPO" and image.n_frames == 2
    assert detect_kind(source) == (Kind.IMAGE, "")
