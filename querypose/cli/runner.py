"""The loop of the demo: reads inputs, predicts, tracks and passes the results on."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from querypose.cli.formats import Kind
from querypose.cli.frames import (
    BATCHES_PER_CHUNK,
    Frame,
    Stream,
    open_stream,
    predict_frames,
    read_ahead,
    read_images,
    read_stream,
)
from querypose.cli.inputs import Input, image_ids
from querypose.cli.options import DemoOptions
from querypose.cli.outputs import json_files
from querypose.cli.pacing import steady_frame_rate
from querypose.cli.progress import Progress, report
from querypose.cli.records import PoseRecords, open_records
from querypose.cli.results import Results
from querypose.cli.stream_writing import open_stream_writer
from querypose.inference.prediction import PosePrediction
from querypose.inference.predictor import PosePredictor
from querypose.inference.tracking import PoseTracker

# As a fraction of the stated length, which some containers only estimate.
_LENGTH_TOLERANCE = 0.05


class Demo:
    """Runs a predictor on inputs.

    A file that cannot be read is reported and skipped. Finished results are on disk afterwards, and
    no unfinished file is left. After an interruption, the video and the JSON end at that frame.

    Args:
        predictor: finds the people.
        options: what to do with the predictions.

    Attributes:
        progress: how far it has come.
    """

    def __init__(self, predictor: PosePredictor, options: DemoOptions) -> None:
        self.predictor = predictor
        self.options = options
        self.progress = Progress()

    def run(self, inputs: Sequence[Input], targets: Mapping[Input, Path]) -> None:
        """Processes the inputs in order.

        Args:
            inputs: distinct.
            targets: where drawings go; an input that is not in it is not written.

        Raises:
            Exception: the predictor failed; earlier results are on disk.
        """
        failure: Exception | None = None
        with self.progress.interruption, self._open_records() as records:
            results = Results(
                predictor=self.predictor,
                options=self.options,
                targets=targets,
                records=records,
                image_id_of=image_ids(inputs),
                progress=self.progress,
            )
            try:
                self._process(inputs, targets, results)
            except Exception as error:
                if not results.num_recorded:
                    raise
                # A GPU may run out of memory after hours: the records so far are kept.
                failure = error
        if self.options.save_json:
            self.progress.written += json_files(Path(self.options.save_json))
        results.save_sheet()
        if failure is not None:
            raise failure

    def _open_records(self) -> AbstractContextManager[PoseRecords | None]:
        if not self.options.save_json:
            return nullcontext()
        return open_records(Path(self.options.save_json), self.predictor.skeleton)

    def _process(
        self, inputs: Sequence[Input], targets: Mapping[Input, Path], results: Results
    ) -> None:
        for is_stream, group in groupby(inputs, key=lambda item: item.is_stream):
            if not is_stream:
                self._process_images(list(group), results)
                continue
            for item in group:
                if self.progress.interruption.requested:
                    return
                try:
                    self._process_stream(item, targets.get(item), results)
                except (ValueError, OSError) as error:
                    self.progress.fail(f"Skipped: {error}")

    def _process_images(self, items: Sequence[Input], results: Results) -> None:
        tracker = self._new_tracker() if self.options.track else None
        chunk_size = BATCHES_PER_CHUNK * self.predictor.batch_size
        frames = self._predict_all(read_images(items), chunk_size, total=len(items), unit="image")
        with closing(frames):
            for frame, prediction in frames:
                if prediction is None:
                    self.progress.fail(f"Skipped: {frame.error}")
                    continue
                self._track(prediction, tracker)
                results.add_image(frame, prediction)

    def _process_stream(self, item: Input, target: Path | None, results: Results) -> None:
        live = item.kind is Kind.WEBCAM
        stream = open_stream(item)
        tracker = None if self.options.track is False else self._new_tracker()
        frames = self._predict_all(
            read_stream(item, stream),
            1 if live else self.predictor.batch_size,
            total=stream.num_frames,
            unit="frame",
        )
        num_frames = 0
        with ExitStack() as stack:
            stack.enter_context(closing(frames))
            writer = None
            if target is not None:
                opening = open_stream_writer(
                    target,
                    frame_rate=stream.frame_rate,
                    steady_frame_rate=lambda: self._steady_frame_rate(item, stream),
                    sound_of=item.source if _may_have_sound(item) else None,
                )
                writer = stack.enter_context(opening)
            for frame, prediction in frames:
                num_frames += 1
                self._track(prediction, tracker)
                results.add_frame(frame, prediction, writer)
        if writer is not None and num_frames:
            self.progress.written.append(writer.target)
            for sentence in writer.changes():
                report(sentence)
        self._report_losses(item, stream, num_frames)

    def _steady_frame_rate(self, item: Input, stream: Stream) -> float:
        if not _can_be_read_again(item):
            return stream.frame_rate
        with closing(iter(open_stream(item))) as frames:
            until_stopped = takewhile(lambda _: not self.progress.interruption.requested, frames)
            return steady_frame_rate((frame.seconds for frame in until_stopped), stream.frame_rate)

    def _report_losses(self, item: Input, stream: Stream, num_frames: int) -> None:
        interrupted = self.progress.interruption.requested
        if num_frames == 0 and not interrupted:
            raise ValueError(f"The {item.kind.value} {item.source} has no frame that can be read.")
        if stream.num_broken:
            self.progress.fail(f"{item.source}: {stream.num_broken} frames could not be decoded.")
        missing = stream.missing_seconds
        if missing > 0 and not interrupted:
            stated = stream.num_frames / stream.frame_rate
            report_gap = self.progress.fail if missing > _LENGTH_TOLERANCE * stated else report
            report_gap(f"{item.source} ended {missing:.2f} seconds before its stated length.")

    def _predict_all(
        self,
        frames: Generator[Frame, None, None],
        chunk_size: int,
        **progress_bar: Any,
    ) -> Iterator[tuple[Frame, PosePrediction | None]]:
        """Predicts with read-ahead and a progress bar, until an interruption.

        Reading runs on a thread of its own, and so does prediction on a GPU, while this thread
        draws and writes. On a CPU PyTorch would start a second team of OpenMP threads for it, and
        OpenMP slows down when its threads outnumber the cores.
        """
        measured = self.progress.stopwatch.measure_items("read, meanwhile", frames)
        pairs = predict_frames(read_ahead(measured, chunk_size), self._predict, chunk_size)
        if self.predictor.model.device.type != "cpu":
            pairs = read_ahead(pairs, chunk_size)
        with closing(pairs), tqdm(**progress_bar) as bar:
            for pair in pairs:
                if self.progress.interruption.requested:
                    return
                yield pair
                bar.update()
                self.progress.num_frames += 1

    def _predict(self, images: list[np.ndarray]) -> list[PosePrediction]:
        with self.progress.stopwatch.measure("predict"):
            return self.predictor(
                images,
                return_attention="attention" in self.options.extras,
                attention_stage=self.options.attention_stage,
                return_maps="maps" in self.options.extras,
            )

    def _new_tracker(self) -> PoseTracker:
        return PoseTracker(self.predictor.skeleton.sigmas)

    def _track(self, prediction: PosePrediction, tracker: PoseTracker | None) -> None:
        if tracker is not None:
            with self.progress.stopwatch.measure("track"):
                prediction.instances.track_ids = tracker.update(prediction.instances)


def _may_have_sound(item: Input) -> bool:
    return item.kind is Kind.VIDEO and _can_be_read_again(item)


def _can_be_read_again(item: Input) -> bool:
    """Whether it is neither a webcam nor a pipe."""
    return item.kind is not Kind.WEBCAM and Path(item.source).is_file()
