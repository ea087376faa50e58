"""A model for the demo, and videos with any time stamps."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from querypose.cli.demo import main

_SMALL = {"INPUT.MIN_SIZE_TEST": 64, "INPUT.MAX_SIZE_TEST": 96}


@pytest.fixture
def tiny_arguments(tiny_cfg, tiny_model, tmp_path) -> tuple[str, ...]:
    """The arguments that name a model."""
    config, weights = tmp_path / ".tiny.yaml", tmp_path / ".tiny.pth"
    config.write_text(tiny_cfg(_SMALL).dump())
    torch.save({"model": tiny_model(_SMALL).state_dict()}, weights)
    return ("--config-file", str(config), "--weights", str(weights))


@pytest.fixture
def run_demo(tiny_arguments, tmp_path) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    """``run_demo("folder/", ...)``: the exit status, and the frames of the JSON."""

    def run(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
        records = tmp_path / ".poses.json"
        status = main([*map(str, arguments), "--save-json", str(records), *tiny_arguments])
        return status, json.loads(records.read_text())["frames"]

    return run


def numbered_frame(index: int) -> np.ndarray:
    """A gray frame whose brightness encodes its number."""
    return np.full((40, 60, 3), 10 + 10 * index, np.uint8)


def frame_number(frame: np.ndarray) -> int:
    """Reads the number of a frame, also after compression and drawing."""
    return round((float(np.median(frame)) - 10) / 10)


def _element(name: str, *parts: bytes) -> bytes:
    """An element of EBML, the format that Matroska is built on."""
    payload = b"".join(parts)
    return bytes.fromhex(name) + struct.pack(">Q", 1 << 56 | len(payload)) + payload


def _number(name: str, value: int) -> bytes:
    return _element(name, struct.pack(">Q", value))


@pytest.fixture
def write_matroska() -> Callable[..., Path]:
    """``write_matroska(path, times, length)``: a video of numbered frames at these seconds.

    The length, in seconds, is stated in the file unless it is None.
    """

    def write(path: Path, times: Sequence[float], length: float | None = None) -> Path:
        clusters = []
        for index, seconds in enumerate(times):
            frame = io.BytesIO()
            Image.fromarray(numbered_frame(index)).save(frame, "JPEG")
            block = _element("A3", b"\x81\0\0\x80", frame.getvalue())
            clusters.append(_element("1F43B675", _number("E7", round(1000 * seconds)), block))
        size = _element("E0", _number("B0", 60), _number("BA", 40))
        track = (_number("D7", 1), _number("73C5", 1), _number("83", 1), _element("86", b"V_MJPEG"))
        info = [_number("2AD7B1", 1_000_000)]
        if length is not None:
            info.append(_element("4489", struct.pack(">d", 1000 * length)))
        tracks = _element("1654AE6B", _element("AE", *track, size))
        header = _element("1A45DFA3", _element("4282", b"matroska"))
        segment = _element("18538067", _element("1549A966", *info), tracks, *clusters)
        path.write_bytes(header + segment)
        return path

    return write


@pytest.fixture
def number_of() -> Callable[[np.ndarray], int]:
    """``number_of(frame)``: the number of a frame."""
    return frame_number


@pytest.fixture
def frame_of() -> Callable[[int], np.ndarray]:
    """``frame_of(number)``: a numbered frame."""
    return numbered_frame
