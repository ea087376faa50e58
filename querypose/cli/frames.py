"""Images and frames, from an input to the prediction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from querypose.cli.animation import AnimationReader
from querypose.cli.formats import Kind
from querypose.cli.inputs import Input
from querypose.cli.video import VideoReader
from querypose.data.image import read_image
from querypose.inference.prediction import PosePrediction

Item = TypeVar("Item")
Predict = Callable[[list[np.ndarray]], list[PosePrediction]]
Stream = AnimationReader | VideoReader

BATCHES_PER_CHUNK = 2
"""Images of one size share a batch; the predictor groups the images of this many batches."""

_END = object()


@dataclass(frozen=True)
class Frame:
    """An image, or a frame of a stream.

    Attributes:
        item: the input that it comes from.
        image: (H, W, 3) uint8 RGB; None if it cannot be read.
        error: why it cannot be read.
        index: in the stream, from 0.
        seconds: since the start of the stream.
        duration: in seconds, if the stream states it.
    """

    item: Input
    image: np.ndarray | None
    error: str = ""
    index: int | None = None
    seconds: float | None = None
    duration: float | None = None


def read_images(items: Sequence[Input]) -> Generator[Frame, None, None]:
    """Reads images; an unreadable one yields a frame with an error."""
    for item in items:
        try:
            yield Frame(item, read_image(item.source, "RGB"))
        except (FileNotFoundError, ValueError) as error:
            yield Frame(item, None, error=str(error))


def open_stream(item: Input) -> Stream:
    """Opens an animation, a video or a webcam.

    Raises:
        ValueError: it cannot be opened.
    """
    if item.kind is Kind.ANIMATION:
        return AnimationReader(item.source)
    return VideoReader(int(item.source) if item.kind is Kind.WEBCAM else item.source)


def read_stream(item: Input, stream: Stream) -> Generator[Frame, None, None]:
    """Reads an open stream."""
    for index, seconds, image, duration in stream:
        yield Frame(item, image, index=index, seconds=seconds, duration=duration)


def predict_frames(
    frames: Iterable[Frame], predict: Predict, chunk_size: int
) -> Iterator[tuple[Frame, PosePrediction | None]]:
    """Predicts ``chunk_size`` frames at a time; a frame with an error has no prediction."""
    frames = iter(frames)
    while chunk := list(islice(frames, chunk_size)):
        images = [frame.image for frame in chunk if frame.image is not None]
        predictions = iter(predict(images))
        for frame in chunk:
            yield frame, None if frame.image is None else next(predictions)


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Iterates on a thread of its own, up to ``depth`` items ahead of the caller.

    An error of the iteration is raised after the items before it. Closing the generator ends the
    thread.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        if hasattr(iterator, "close"):
            iterator.close()
