"""Times of frames come from the time stamps of the decoder."""

from __future__ import annotations

import re
from itertools import accumulate

import cv2
import pytest

from querypose.cli.video import VideoReader


def at(*gaps):
    return list(accumulate(gaps, initial=0.0))


SLOWER = at(*[0.1] * 10, *[0.5] * 9)
FASTER = at(*[0.5] * 9, *[0.1] * 10)
UNEVEN = at(0.033, 0.2, 0.05, 0.033, 0.4, 0.033, 0.3, 0.06)


@pytest.mark.parametrize("times", [SLOWER, FASTER, UNEVEN], ids=["slower", "faster", "uneven"])
def test_the_json_has_the_times_of_the_decoder(times, run_demo, write_matroska, tmp_path, capsys):
    source = write_matroska(tmp_path / "film.mkv", times, length=times[-1] + 0.1)
    status, frames = run_demo(source)
    assert status == 0
    assert [frame["time"] for frame in frames] == pytest.approx(times, abs=0.002)
    assert [frame["frame"] for frame in frames] == list(range(len(times)))
    assert "querypose-demo:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("times", "suffix"), [(SLOWER, ".mp4"), (FASTER, ".avi"), (FASTER, ".mkv")]
)
def test_the_drawn_video_plays_in_time(
    times, suffix, run_demo, write_matroska, number_of, tmp_path
):
    source = write_matroska(tmp_path / "film.mkv", times)
    drawn = tmp_path / f"drawn{suffix}"
    status, _ = run_demo(source, "--output", drawn, "--confidence-threshold", "1")
    assert status == 0
    frames = {frame.seconds: number_of(frame.image) for frame in VideoReader(str(drawn))}
    for index, seconds in enumerate(times):
        shown_from = min(second for second, number in frames.items() if number == index)
        assert shown_from == pytest.approx(seconds, abs=0.01)
    capture = cv2.VideoCapture(str(drawn))
    length = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    last_gap = times[-1] - times[-2]
    assert length == pytest.approx(times[-1] + last_gap, abs=0.01)


@pytest.mark.parametrize(
    "stamps", [[0.0] * 20, [*at(*[0.1] * 9)] * 2], ids=["all zero", "starting again"]
)
def test_invalid_stamps_are_replaced_by_the_frame_rate(stamps, run_demo, write_matroska, tmp_path):
    source = write_matroska(tmp_path / "film.mkv", stamps)
    frame_rate = VideoReader(str(source)).frame_rate
    status, frames = run_demo(source)
    assert status == 0
    times = [frame["time"] for frame in frames]
    assert times == pytest.approx([index / frame_rate for index in range(20)], abs=0.002)


def test_the_stated_length_is_compared_in_seconds(run_demo, write_matroska, tmp_path, capsys):
    """OpenCV computes the number of frames from the length and the rate of the first frames."""
    source = write_matroska(tmp_path / "whole.mkv", SLOWER, length=6)
    assert VideoReader(str(source)).num_frames == 60
    assert run_demo(source)[0] == 0
    assert "stated length" not in capsys.readouterr().err
    source = write_matroska(tmp_path / "cut.mkv", SLOWER, length=60)
    assert run_demo(source)[0] == 1
    [seconds] = re.findall(r"cut.mkv ended ([\d.]+) seconds before", capsys.readouterr().err)
    assert float(seconds) == pytest.approx(54, abs=0.1)


@pytest.mark.parametrize("name", ["mmpose_demo.mp4", "vtest_5s.mp4"])
def test_real_videos(name, real_data):
    file = str(real_data / "videos" / name)
    capture, stamps = cv2.VideoCapture(file), []
    while capture.read()[0]:
        stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    reader = VideoReader(file)
    assert [frame.seconds for frame in reader] == stamps
    assert stamps == pytest.approx([index / reader.frame_rate for index in range(len(stamps))])
