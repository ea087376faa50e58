"""Videos that browsers play, with the times and the sound of the input."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from PIL import Image

from querypose.cli import stream_writing
from querypose.cli.video import VideoReader

av = pytest.importorskip("av", reason="PyAV writes H.264")
h264 = pytest.importorskip("querypose.cli.h264")

UNEVEN = list(accumulate((0.033, 0.2, 0.05, 0.4, 0.033, 0.3), initial=0.0))


def opened(path):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = [(float(frame.pts * frame.time_base), frame) for frame in container.decode(video)]
        return video.codec_context, [seconds for seconds, _ in frames], frames


def sound_packets(path):
    """(seconds, bytes) of every packet."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in packets
            if packet.pts is not None
        ]


@pytest.fixture
def film(tmp_path, frame_of):
    """``film(name, sound)``: a video of one second, ten frames, with a tone of this codec."""

    def write(name, sound="aac", layout="mono", start=0.0):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 60, 40, "yuv420p"
            audio = container.add_stream(sound, rate=8000, layout=layout)
            tone = np.sin(np.arange(8000) * 0.3).astype(np.float32)
            for index in range(10):
                frame = av.VideoFrame.from_ndarray(frame_of(index), "rgb24")
                frame.pts, frame.time_base = index + round(10 * start), Fraction(1, 10)
                container.mux(video.encode(frame))
                # The codec may add a little at the end, which should not outlast the frames.
                if index < 8:
                    piece = tone[None, 800 * index : 800 * (index + 1)]
                    channels = piece.repeat(audio.layout.nb_channels, axis=0)
                    block = av.AudioFrame.from_ndarray(channels, "fltp", layout)
                    block.sample_rate, block.pts = 8000, 800 * index
                    container.mux(audio.encode(block))
            container.mux(video.encode())
            container.mux(audio.encode())
        return path

    return write


@pytest.mark.parametrize("name", ["drawn.mp4", "drawn.mov", "drawn.mkv"])
def test_frames_keep_their_times_in_h264(name, tmp_path, frame_of, number_of):
    with h264.H264Writer(tmp_path / name, 10) as writer:
        for index, seconds in enumerate(UNEVEN):
            writer.write(frame_of(index), seconds)
    codec, times, frames = opened(tmp_path / name)
    assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    assert times == pytest.approx(UNEVEN, abs=0.002)
    images = [frame.to_ndarray(format="rgb24") for _, frame in frames]
    assert [number_of(image) for image in images] == list(range(len(UNEVEN)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_index_comes_before_the_data(tmp_path, frame_of):
    with h264.H264Writer(tmp_path / "a.mp4", 10) as writer:
        writer.write(frame_of(0), 0.0)
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_the_last_frame_is_shown_for_its_duration(tmp_path, frame_of):
    for duration, expected in ((0.7, 0.8), (None, 0.2)):
        with h264.H264Writer(tmp_path / "a.mp4", 10) as writer:
            writer.write(frame_of(0), 0.0)
            writer.write(frame_of(1), 0.1, duration)
        with av.open(str(tmp_path / "a.mp4")) as container:
            stream = container.streams.video[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(expected, abs=0.01)


def test_frames_at_one_time_and_of_odd_sizes_are_kept(tmp_path):
    with h264.H264Writer(tmp_path / "a.mp4", 10) as writer:
        for seconds, size in ((0.0, (41, 61)), (0.0, (41, 61)), (0.5, (80, 120))):
            writer.write(np.full((*size, 3), 100, np.uint8), seconds)
    _, times, frames = opened(tmp_path / "a.mp4")
    assert len(times) == 3
    assert {(frame.height, frame.width) for _, frame in frames} == {(40, 60)}


def test_frames_of_one_pixel_are_refused(tmp_path):
    writing = h264.H264Writer(tmp_path / "a.mp4", 10)
    with pytest.raises(ValueError, match=r"a\.mp4 would be a video less than two pixels"), writing:
        writing.write(np.zeros((40, 1, 3), np.uint8), 0.0)


def test_a_frame_an_hour(tmp_path, frame_of):
    with h264.H264Writer(tmp_path / "a.mp4", 1 / 3600) as writer:
        writer.write(frame_of(0), 0.0)
        writer.write(frame_of(1), 3600.0)
    assert opened(tmp_path / "a.mp4")[1] == pytest.approx([0.0, 3600.0])


def test_a_video_that_fails_midway_leaves_the_previous_one(tmp_path, frame_of):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(RuntimeError), h264.H264Writer(target, 10) as writer:
        writer.write(frame_of(0), 0.0)
        raise RuntimeError("the model failed")
    assert target.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_the_sound_of_the_input_is_copied(name, film, run_demo, tmp_path, capsys):
    source, drawn = film("source.mkv"), tmp_path / "out" / name
    status, frames = run_demo(source, "--output", drawn, "--confidence-threshold", "1")
    assert status == 0 and "querypose-demo:" not in capsys.readouterr().err
    codec, times, _ = opened(drawn)
    assert codec.name == "h264" and times == pytest.approx([f["time"] for f in frames], abs=0.002)
    before, after = sound_packets(source), sound_packets(drawn)
    # The encoder's first packet lies before the start.
    before = [packet for packet in before if packet[0] >= 0]
    assert [data for _, data in after] == [data for _, data in before[: len(after)]]
    assert len(after) >= len(before) - 1 >= 5
    assert [t for t, _ in after] == pytest.approx([t for t, _ in before[: len(after)]], abs=0.002)


def test_names_like_web_addresses_are_files(film, run_demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    film("12:30.mkv")
    assert run_demo("12:30.mkv", "--output", "12:31.mp4")[0] == 0
    assert "querypose-demo:" not in capsys.readouterr().err
    assert opened(tmp_path / "12:31.mp4")[0].name == "h264" and sound_packets("./12:31.mp4")


def test_sound_counts_from_the_first_frame(film, run_demo, tmp_path):
    source = film("source.mkv", start=0.5)
    run_demo(source, "--output", tmp_path / "a.mp4", "--confidence-threshold", "1")
    before = dict(map(reversed, sound_packets(source)))
    after = sound_packets(tmp_path / "a.mp4")
    assert len(after) >= 3
    for seconds, data in after:
        assert before[data] == pytest.approx(seconds + 0.5, abs=0.002)


@pytest.mark.parametrize(
    ("source", "sound", "drawn"),
    [
        ("source.avi", "pcm_mulaw", "a.mp4"),
        # FFmpeg says of these that the file may hold them, and refuses at the end or in the header.
        ("source.avi", "pcm_s16le", "a.mp4"),
        ("source.mkv", "pcm_s16le", "a.mp4"),
        ("source.mkv", "flac", "a.mov"),
    ],
)
def test_sound_that_the_file_cannot_hold_is_reported(
    source, sound, drawn, film, run_demo, tmp_path, capsys
):
    target = tmp_path / drawn
    status, frames = run_demo(film(source, sound, "stereo"), "--output", target)
    assert status == 0 and len(frames) == len(opened(target)[1]) == 10
    sentence = f"{drawn} has no sound: {target.suffix[1:]} cannot hold its codec {sound}."
    assert sentence in capsys.readouterr().err


def test_sound_without_a_known_codec_is_reported(film, run_demo, tmp_path, capsys):
    source = film("source.mkv")
    source.write_bytes(source.read_bytes().replace(b"A_AAC", b"A_ODD"))
    assert run_demo(source, "--output", tmp_path / "a.mp4")[0] == 0
    assert "a.mp4 has no sound: mp4 cannot hold its codec" in capsys.readouterr().err


@pytest.mark.parametrize("drawn", ["a.mp4", "a.mkv"])
def test_sound_of_joined_recordings_goes_on(drawn, film, run_demo, tmp_path, capsys):
    single, joined = film("source.ts"), tmp_path / "joined.ts"
    joined.write_bytes(2 * single.read_bytes())
    status, frames = run_demo(joined, "--output", tmp_path / drawn)
    assert status == 0 and "querypose-demo:" not in capsys.readouterr().err
    assert len(frames) == len(opened(tmp_path / drawn)[1]) == 20
    sound = sound_packets(tmp_path / drawn)
    assert len(sound) >= 2 * len(sound_packets(single)) - 2
    gaps = np.diff([seconds for seconds, _ in sound])
    assert gaps == pytest.approx(np.full(len(gaps), 1024 / 8000), abs=0.002)


def test_damaged_sound_costs_its_packets_alone(film, frame_of, tmp_path):
    source, drawn = film("source.ts"), tmp_path / "a.mp4"
    content = bytearray(source.read_bytes())
    for _, packet in sound_packets(source)[2:4]:
        # The length in the header of the packet becomes wrong.
        start = content.index(packet[:7])
        content[start + 3 : start + 6] = b"\0\0\0"
    source.write_bytes(content)
    with h264.H264Writer(drawn, 10, str(source)) as writer:
        for index in range(10):
            writer.write(frame_of(index), index / 10)
    [sentence] = writer.changes()
    assert sentence.startswith(f"{drawn} lacks parts of the sound: ")
    assert len(opened(drawn)[1]) == 10 and len(sound_packets(drawn)) >= 3


@pytest.mark.parametrize("has_pyav", [True, False])
def test_opencv_writes_no_sound_and_the_user_hears_of_it(
    has_pyav, film, write_matroska, run_demo, tmp_path, capsys, monkeypatch
):
    if not has_pyav:
        monkeypatch.setattr(stream_writing, "find_spec", lambda name: None)
    assert run_demo(film("source.mkv"), "--output", tmp_path / "a.avi")[0] == 0
    sentence = "a.avi has no sound: with PyAV (pip install av), .mkv, .mov and .mp4 files keep it."
    assert sentence in capsys.readouterr().err
    silent = write_matroska(tmp_path / "silent.mkv", [0.0, 0.1])
    assert run_demo(silent, "--output", tmp_path / "b.avi")[0] == 0
    # Without PyAV nobody knows whether there was sound.
    assert ("has no sound" in capsys.readouterr().err) is not has_pyav
    wave = tmp_path / "wave.gif"
    frames = [Image.new("L", (60, 40), shade) for shade in (0, 100)]
    frames[0].save(wave, save_all=True, append_images=frames[1:])
    assert run_demo(wave, "--output", tmp_path / "c.avi")[0] == 0
    assert "has no sound" not in capsys.readouterr().err


def test_without_pyav_a_sentence_says_what_browsers_do_not_play(
    film, run_demo, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(stream_writing, "find_spec", lambda name: None)
    status, _ = run_demo(film("source.mkv"), "--output", tmp_path / "a.mp4")
    assert status == 0
    assert "a.mp4 is coded in MPEG-4 Part 2, which browsers do not" in capsys.readouterr().err
    assert opened(tmp_path / "a.mp4")[0].name == "mpeg4"
    assert len(list(VideoReader(str(tmp_path / "a.mp4")))) == 10
