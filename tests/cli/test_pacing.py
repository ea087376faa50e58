from __future__ import annotations

from itertools import accumulate

import pytest

from querypose.cli.pacing import open_paced_writer, steady_frame_rate
from querypose.cli.video import VideoReader


def at(*gaps):
    return list(accumulate(gaps, initial=0.0))


@pytest.mark.parametrize("frame_rate", [0.5, 5, 12.5, 23.976, 25, 29.97, 59.94, 240])
def test_a_steady_video_keeps_its_frame_rate(frame_rate):
    times = [index / frame_rate for index in range(300)]
    assert steady_frame_rate(times, frame_rate) == frame_rate
    in_milliseconds = [round(time, 3) for time in times]
    assert steady_frame_rate(in_milliseconds, frame_rate) == frame_rate


@pytest.mark.parametrize(
    ("times", "stated", "expected"),
    [
        (at(*[0.1] * 10, *[0.5] * 9), 20 / 6, 10),
        (at(*[0.5] * 9, *[0.1] * 10), 20 / 6, 10),
        (at(*[0.5] * 100, *[0.04] * 100), 200 / 54, 25),
        (at(0.1, 0.2, 0.3, 0.05), 10, 20),
        (at(*[0.001] * 20, 1.0), 20, 240),
        (at(*[1 / 240, 1 / 200] * 20), 218, 218),
        (at(*[0.04] * 100), 1000, 25),
        (at(*[0.04] * 100), 50, 25),
        (at(*[0.04] * 100), 90000, 25),
        (at(), 30, 30),
        (at(0.0, 0.0), 30, 30),
    ],
)
def test_an_uneven_video_gets_a_position_for_every_frame(times, stated, expected):
    assert steady_frame_rate(times, stated) == pytest.approx(expected, abs=0.01)


def test_a_steady_video_is_not_read_to_its_end():
    times = (index / 25 for index in range(10**9))
    assert steady_frame_rate(times, 25) == 25


def shown(target, times, frame_rate, tools, durations=None):
    """Numbers of the frames in a paced video, and the changes that the writer reports."""
    frame_of, number_of = tools
    durations = durations or [None] * len(times)
    with open_paced_writer(target, frame_rate) as writer:
        for index, pair in enumerate(zip(times, durations, strict=True)):
            writer.write(frame_of(index), *pair)
    changes = [sentence for sentence in writer.changes() if "browsers" not in sentence]
    return [number_of(frame.image) for frame in VideoReader(str(target))], changes


@pytest.fixture
def tools(frame_of, number_of):
    return frame_of, number_of


@pytest.mark.parametrize("name", ["film.mp4", "film.avi"])
def test_a_frame_is_shown_until_the_next_is_due(name, tools, tmp_path):
    numbers, changes = shown(tmp_path / name, [0, 0.1, 0.4, 0.5, 0.8], 10, tools)
    assert numbers == [0, 1, 1, 1, 2, 3, 3, 3, 4, 4, 4] and changes == []


def test_the_last_frame_is_shown_for_its_duration(tools, tmp_path):
    target = tmp_path / "film.mp4"
    assert shown(target, [0, 0.1], 10, tools, [0.1, 0.5])[0] == [0, 1, 1, 1, 1, 1]
    assert shown(target, [0.0], 10, tools)[0] == [0]


def test_the_first_frame_is_shown_from_the_start(tools, tmp_path):
    assert shown(tmp_path / "film.mp4", [0.3, 0.4], 10, tools)[0] == [0, 0, 0, 0, 1]


def test_frames_without_a_position_are_reported(tools, tmp_path):
    numbers, [sentence] = shown(tmp_path / "film.mp4", [0, 0.01, 0.02, 0.1, 0.3], 10, tools)
    assert numbers == [0, 3, 3, 4, 4]
    assert "film.mp4 lacks 2 of the frames: at 10 frames a second" in sentence


def test_very_long_pauses_are_cut_and_reported(tools, tmp_path):
    times = [0, 0.1, 1e6, 1e6 + 0.2, 3e6]
    numbers, [sentence] = shown(tmp_path / "film.mp4", times, 10, tools)
    assert numbers == [0, 1, 2, 2, 3, 4]
    assert "film.mp4 lacks 2 of the pauses" in sentence
