from __future__ import annotations

import math

import pytest

from querypose.cli.clock import FrameClock

NAN = float("nan")


def times(stamps, frame_rate=10.0, indices=None):
    clock = FrameClock(frame_rate)
    indices = range(len(stamps)) if indices is None else indices
    return [clock.seconds(*pair) for pair in zip(indices, stamps, strict=True)]


@pytest.mark.parametrize(
    "stamps",
    [[0, 0.1, 0.2, 0.3], [0, 0.1, 0.7, 5.0], [0.4, 0.5, 0.9], [0, 0.04, 0.08], [0, 1e5, 1e5 + 1]],
)
def test_valid_stamps_are_the_times(stamps):
    assert times(stamps) == stamps


@pytest.mark.parametrize(
    "stamp", [0.0, -1.0, NAN, -math.inf, math.inf], ids=["0", "-1", "NaN", "-inf", "inf"]
)
def test_without_stamps_times_follow_the_frame_rate(stamp):
    assert times([stamp] * 5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert times([stamp] * 3, indices=[0, 4, 5]) == pytest.approx([0, 0.4, 0.5])


def test_between_stamps_times_follow_the_frame_rate():
    assert times([0, 0.5, NAN, 0.0, 0.9]) == pytest.approx([0, 0.5, 0.6, 0.7, 0.9])
    # The stamp is earlier than the time counted by the frame rate.
    assert times([0, 0.5, NAN, NAN, 0.6, 0.9]) == pytest.approx([0, 0.5, 0.6, 0.7, 0.7, 0.9])
    assert times([0, 0.2, 0.2, 0.4]) == pytest.approx([0, 0.2, 0.3, 0.4])


def test_times_go_on_if_stamps_start_again():
    once = [0.1 * index for index in range(10)]
    assert times([*once, *once]) == pytest.approx([0.1 * index for index in range(20)])
    # The second recording is longer than the first, and has another frame rate.
    short, long = [0, 0.1, 0.2], [0, 0.2, 0.4, 0.6, 0.8]
    assert times([*short, *long]) == pytest.approx([*short, 0.3, 0.5, 0.7, 0.9, 1.1])
    assert times([*long, *short, *long]) == pytest.approx(
        [*long, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0]
    )


def test_frames_out_of_order_do_not_slow_a_video_down():
    groups = [0.32 * index for index in range(10)]
    found = times([group + step for group in groups for step in (0, 0.16, 0.08, 0.04, 0.12)], 25.0)
    assert found[-1] == pytest.approx(9 * 0.32 + 0.16 + 3 * 0.04, abs=0.05)


def test_skipped_indices_take_time():
    assert times([0, 0.1, 0.5], indices=[0, 1, 5]) == [0, 0.1, 0.5]


def test_the_end_is_one_longest_frame_later():
    clock = FrameClock(10.0)
    assert clock.end == pytest.approx(0.1)
    for index, stamp in enumerate([0, 0.1, 0.6, 0.7]):
        clock.seconds(index, stamp)
    assert clock.end == pytest.approx(1.2)
