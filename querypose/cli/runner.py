"""The demo's loop: frames in, drawings, JSON and a sheet out."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from querypose.atomic_files import atomic_file
from querypose.cli.formats import Kind
from querypose.cli.frames import (
    Frame,
    Predict,
    Stream,
    open_stream,
    predicted,
    read_images,
    read_stream,
)
from querypose.cli.inputs import Input, image_ids
from querypose.cli.interruption import Interruption
from querypose.cli.outputs import attention_target
from querypose.cli.pacing import PacedWriter, open_paced_writer, steady_frame_rate
from querypose.cli.records import PoseRecords, open_records
from querypose.cli.timing import Stopwatch
from querypose.cli.video import read_ahead
from querypose.cli.window import Window
from querypose.inference.prediction import PosePrediction
from querypose.inference.predictor import PosePredictor
from querypose.inference.tracking import PoseTracker
from querypose.visualization import PoseVisualizer, draw_attention, pose_sheet
from querypose.visualization.sheet import sheet_tile

# Images of one size share a batch; so many batches' worth are looked through for them.
_BATCHES_PER_CHUNK = 2
_SHEET_ROW_HEIGHT = 240
# Some containers state their length by estimate only.
_LENGTH_TOLERANCE = 0.05


@dataclass(frozen=True)
class DemoOptions:
    """What the demo does with its predictions.

    Attributes:
        save_json: the plain JSON file, "" for none.
        sheet: an image for the mosaic of all drawn images, "" for none.
        window: shows drawings, if any.
        draw: see :class:`PoseVisualizer`.
        attention: draw part attention of images, too.
        attention_stage: of which decoder stage; negative counts from the last.
        attention_person: of whom, from 1 by falling score; None takes everybody.
        keypoint_threshold: see :class:`PoseVisualizer`; None takes the predictor's.
        track: None tracks people in streams alone.
    """

    save_json: str = ""
    sheet: str = ""
    window: Window | None = None
    draw: frozenset[str] = frozenset({"boxes", "skeleton", "scores"})
    attention: bool = False
    attention_stage: int = -1
    attention_person: int | None = None
    keypoint_threshold: float | None = None
    track: bool | None = None


class Demo:
    """Runs a predictor over inputs.

    A file that cannot be read is reported and skipped. What is finished, or finished up to an
    interruption, is on disk afterwards; nothing else is.

    Args:
        predictor: finds the people.
        options: what to do with them.

    Attributes:
        interruption: whether Ctrl-C was pressed.
        num_failures: what could not be done.
        num_frames: images and frames that are done, unreadable ones included.
        stopwatch: where the time went.
    """

    def __init__(self, predictor: PosePredictor, options: DemoOptions) -> None:
        self.predictor = predictor
        self.options = options
        self.interruption = Interruption()
        self._keypoint_threshold = (
            predictor.keypoint_threshold
            if options.keypoint_threshold is None
            else options.keypoint_threshold
        )
        self.num_failures = 0
        self.num_frames = 0
        self.stopwatch = Stopwatch()
        self._num_recorded = 0
        self._tiles: list[np.ndarray] = []

    def run(self, inputs: Sequence[Input], targets: Mapping[Input, Path]) -> None:
        """Looks at every input in turn.

        Args:
            inputs: distinct.
            targets: where drawings go; an input that is not in it is not written.

        Raises:
            Exception: the predictor failed; what was done before is on disk.
        """
        self._targets = targets
        self._image_id = image_ids(inputs)
        failure: Exception | None = None
        with self.interruption, self._open_records() as self._records:
            try:
                self._look_at(inputs)
            except Exception as error:
                if not self._num_recorded:
                    raise
                # A GPU's memory may run out after hours: what was seen by then is kept.
                failure = error
        if self.options.sheet and self._tiles:
            sheet = pose_sheet(self._tiles, row_height=_SHEET_ROW_HEIGHT)
            self._save(sheet, Path(self.options.sheet))
        if failure is not None:
            raise failure

    def _look_at(self, inputs: Sequence[Input]) -> None:
        for is_stream, group in groupby(inputs, key=lambda item: item.is_stream):
            if not is_stream:
                self._images(list(group))
                continue
            for item in group:
                if not self.interruption.requested:
                    self._stream_or_skip(item)

    def _open_records(self) -> Any:
        if not self.options.save_json:
            return nullcontext()
        return open_records(Path(self.options.save_json), self.predictor.skeleton)

    def fail(self, message: str) -> None:
        """Reports what could not be done; the exit code will tell of it."""
        self.num_failures += 1
        report(message)

    def _predict(self, images: list[np.ndarray]) -> list[PosePrediction]:
        with self.stopwatch.measure("predict"):
            return self.predictor(images)

    def _predict_with_attention(self, images: list[np.ndarray]) -> list[PosePrediction]:
        stage = self.options.attention_stage
        with self.stopwatch.measure("predict"):
            return self.predictor(images, return_attention=True, attention_stage=stage)

    def _images(self, items: Sequence[Input]) -> None:
        tracker = self._tracker() if self.options.track else None
        predict = self._predict_with_attention if self.options.attention else self._predict
        chunk_size = _BATCHES_PER_CHUNK * self.predictor.batch_size
        frames = self._watched(
            read_images(items), predict, chunk_size, total=len(items), unit="image"
        )
        with closing(frames):
            for frame, prediction in frames:
                if prediction is None:
                    self.fail(f"Skipped: {frame.error}")
                    continue
                self._track(prediction, tracker)
                self._image(frame, prediction)

    def _image(self, frame: Frame, prediction: PosePrediction) -> None:
        target = self._targets.get(frame.item)
        drawn = self._drawn(frame, prediction)
        if target is not None:
            self._save(drawn, target)
            if self.options.attention:
                self._attention(frame, prediction, attention_target(target))
        if self.options.sheet:
            self._tiles.append(sheet_tile(drawn, _SHEET_ROW_HEIGHT))
        self._record(frame, prediction)
        self._show(drawn, wait=True)

    def _attention(self, frame: Frame, prediction: PosePrediction, target: Path) -> None:
        person = self.options.attention_person
        if len(prediction) < (person or 1):
            # Nobody's attention is no failure, but a missing file should not surprise.
            who = "nobody" if person is None else f"no person {person}"
            report(f"{frame.item.source}: {who} whose attention could be drawn.")
            return
        with self.stopwatch.measure("draw"):
            people = None if person is None else [person - 1]
            drawn = draw_attention(frame.image, prediction, people)
        self._save(drawn, target)

    def _stream_or_skip(self, item: Input) -> None:
        try:
            self._stream(item)
        except (ValueError, OSError) as error:
            self.fail(f"Skipped: {error}")

    def _stream(self, item: Input) -> None:
        live = item.kind is Kind.WEBCAM
        target = self._targets.get(item)
        reader = open_stream(item)
        tracker = None if self.options.track is False else self._tracker()
        frames = self._watched(
            read_stream(item, reader),
            self._predict,
            1 if live else self.predictor.batch_size,
            total=reader.num_frames,
            unit="frame",
        )
        num_frames = 0
        with ExitStack() as stack:
            stack.enter_context(closing(frames))
            writer = None
            if target is not None:
                frame_rate = self._steady_frame_rate(item, reader)
                writer = stack.enter_context(open_paced_writer(target, frame_rate))
            for frame, prediction in frames:
                num_frames += 1
                self._track(prediction, tracker)
                self._frame(frame, prediction, writer)
        if writer is not None and writer.target != target:
            report(f"This OpenCV has no codec for {target}: the video is {writer.target}.")
        if writer is not None and not live:
            for sentence in writer.changes():
                report(sentence)
        self._report_losses(item, reader, num_frames)

    def _steady_frame_rate(self, item: Input, stream: Stream) -> float:
        # A webcam or a pipe can be read once.
        if item.kind is Kind.WEBCAM or not Path(item.source).is_file():
            return stream.frame_rate
        with closing(iter(open_stream(item))) as frames:
            watched = takewhile(lambda _: not self.interruption.requested, frames)
            return steady_frame_rate((frame.seconds for frame in watched), stream.frame_rate)

    def _frame(self, frame: Frame, prediction: PosePrediction, writer: PacedWriter | None) -> None:
        if writer is not None or self.options.window is not None:
            drawn = self._drawn(frame, prediction)
            if writer is not None:
                with self.stopwatch.measure("write"):
                    writer.write(drawn, frame.seconds, frame.duration)
            self._show(drawn, wait=False)
        self._record(frame, prediction)

    def _report_losses(self, item: Input, reader: Stream, num_frames: int) -> None:
        if num_frames == 0 and not self.interruption.requested:
            raise ValueError(f"The {item.kind.value} {item.source} has no frame that can be read.")
        if reader.num_broken:
            self.fail(f"{item.source}: {reader.num_broken} frames could not be decoded.")
        missing = reader.missing_seconds
        if missing > 0 and not self.interruption.requested:
            stated = reader.num_frames / reader.frame_rate
            tell = self.fail if missing > _LENGTH_TOLERANCE * stated else report
            tell(f"{item.source} ended {missing:.2f} seconds before its stated length.")

    def _watched(
        self,
        frames: Generator[Frame, None, None],
        predict: Predict,
        chunk_size: int,
        **progress: Any,
    ) -> Iterator[tuple[Frame, PosePrediction | None]]:
        """Predicts with reading ahead and a progress bar, until an interruption.

        Reading has a thread of its own. So has prediction on a GPU, which drawing and writing then
        cost no time. On a CPU PyTorch would start a second team of OpenMP threads for it, and
        OpenMP slows down where its threads outnumber the cores.
        """
        read = read_ahead(self.stopwatch.measured("read, meanwhile", frames), chunk_size)
        pairs = predicted(read, predict, chunk_size)
        if self.predictor.model.device.type != "cpu":
            pairs = read_ahead(pairs, chunk_size)
        with closing(pairs), tqdm(**progress) as bar:
            for pair in pairs:
                if self.interruption.requested:
                    return
                yield pair
                bar.update()
                self.num_frames += 1

    def _tracker(self) -> PoseTracker:
        return PoseTracker(self.predictor.skeleton.sigmas)

    def _track(self, prediction: PosePrediction, tracker: PoseTracker | None) -> None:
        if tracker is not None:
            with self.stopwatch.measure("track"):
                prediction.instances.track_ids = tracker.update(prediction.instances)

    def _drawn(self, frame: Frame, prediction: PosePrediction) -> np.ndarray:
        with self.stopwatch.measure("draw"):
            visualizer = PoseVisualizer(
                frame.image,
                self.predictor.metadata,
                draw=self.options.draw,
                keypoint_threshold=self._keypoint_threshold,
            )
            return visualizer.draw_instance_predictions(prediction.instances).get_image()

    def _save(self, image: np.ndarray, target: Path) -> None:
        """Writes an image; a full disk or a format's limits cost this one alone."""
        try:
            with self.stopwatch.measure("write"), atomic_file(target) as path:
                Image.fromarray(image).save(path, **_quality(target))
        except (OSError, ValueError) as error:
            self.fail(f"{target} could not be written: {error}")

    def _record(self, frame: Frame, prediction: PosePrediction) -> None:
        records: PoseRecords | None = self._records
        if records is None:
            return
        image_id = self._image_id(frame.item, self._num_recorded)
        place: dict[str, Any] = {"image_id": image_id, "source": frame.item.source}
        if frame.index is not None:
            place |= {"frame": frame.index, "time": round(frame.seconds, 4)}
        with self.stopwatch.measure("record"):
            records.add(place, prediction)
        self._num_recorded += 1

    def _show(self, drawn: np.ndarray, wait: bool) -> None:
        window = self.options.window
        if window is not None and not window.show(drawn, wait):
            self.interruption.requested = True


def report(message: str) -> None:
    """Writes a line to the error stream without breaking the progress bar."""
    tqdm.write(f"querypose-demo: {message}", file=sys.stderr)


def _quality(target: Path) -> dict[str, int]:
    return {"quality": 92} if target.suffix.lower() in {".jpg", ".jpeg", ".webp"} else {}
