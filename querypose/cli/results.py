"""Outputs of the demo: drawings, a sheet, JSON and a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from querypose.atomic_files import atomic_file
from querypose.cli.frames import Frame
from querypose.cli.inputs import Input
from querypose.cli.options import DemoOptions
from querypose.cli.outputs import extra_target
from querypose.cli.progress import Progress, report
from querypose.cli.records import PoseRecords
from querypose.cli.stream_writing import StreamWriter
from querypose.inference.prediction import PosePrediction
from querypose.inference.predictor import PosePredictor
from querypose.visualization import PoseVisualizer, draw_attention, draw_maps, pose_sheet
from querypose.visualization.sheet import sheet_tile

# Two rows of four photos fill a sheet.
_SHEET_ROW_HEIGHT = 300
_LONGEST_SIDE = 65_500
_LONGEST_SIDE_OF_WEBP = 16_383
_QUALITY = {".jpg": 92, ".jpeg": 92, ".webp": 92}


def longest_side(suffix: str) -> int:
    """The most pixels of a sheet's side: what JPEG allows, and WebP less."""
    return _LONGEST_SIDE_OF_WEBP if suffix.lower() == ".webp" else _LONGEST_SIDE


class Results:
    """Draws, writes and shows predictions.

    Args:
        predictor: made the predictions.
        options: what to do with them.
        targets: where the drawings of images go; an input that is not in it is not written.
        records: the JSON files, if any.
        image_id_of: see :func:`~querypose.cli.inputs.image_ids`.
        progress: counts failures and time; an interruption is requested when the window is closed.

    Attributes:
        num_recorded: frames in the JSON files so far.
    """

    def __init__(
        self,
        *,
        predictor: PosePredictor,
        options: DemoOptions,
        targets: Mapping[Input, Path],
        records: PoseRecords | None,
        image_id_of: Callable[[Input, int], int],
        progress: Progress,
    ) -> None:
        self._metadata = predictor.metadata
        self._score_scale = predictor.score_scale
        self._keypoint_threshold = (
            predictor.keypoint_threshold
            if options.keypoint_threshold is None
            else options.keypoint_threshold
        )
        self._options = options
        self._targets = targets
        self._records = records
        self._image_id_of = image_id_of
        self._progress = progress
        self._tiles: list[np.ndarray] = []
        self.num_recorded = 0

    def add_image(self, frame: Frame, prediction: PosePrediction) -> None:
        """Takes the prediction of an image."""
        target = self._targets.get(frame.item)
        drawn = self._draw(frame, prediction)
        if target is not None:
            self._save(drawn, target)
            if "attention" in self._options.extras:
                self._save_attention(frame, prediction, extra_target(target, "attention"))
            if "maps" in self._options.extras:
                self._save_maps(frame, prediction, extra_target(target, "maps"))
        if self._options.sheet:
            self._tiles.append(sheet_tile(drawn, _SHEET_ROW_HEIGHT))
        self._record(frame, prediction)
        self._show(drawn, wait=True)

    def add_frame(
        self, frame: Frame, prediction: PosePrediction, writer: StreamWriter | None
    ) -> None:
        """Takes the prediction of a frame; the writer, if any, is that of the drawn video."""
        if writer is not None or self._options.window is not None:
            drawn = self._draw(frame, prediction)
            if writer is not None:
                with self._progress.stopwatch.measure("write"):
                    writer.write(drawn, frame.seconds, frame.duration)
            self._show(drawn, wait=False)
        self._record(frame, prediction)

    def save_sheet(self) -> None:
        """Writes the sheet of all images so far, if there are any."""
        if self._tiles:
            target = Path(self._options.sheet)
            longest = longest_side(target.suffix)
            sheet = pose_sheet(self._tiles, row_height=_SHEET_ROW_HEIGHT, longest_side=longest)
            self._save(sheet, target)

    def _draw(self, frame: Frame, prediction: PosePrediction) -> np.ndarray:
        with self._progress.stopwatch.measure("draw"):
            visualizer = PoseVisualizer(
                frame.image,
                self._metadata,
                draw=self._options.draw,
                keypoint_threshold=self._keypoint_threshold,
                score_scale=self._score_scale,
            )
            return visualizer.draw_instance_predictions(prediction.instances).get_image()

    def _save_attention(self, frame: Frame, prediction: PosePrediction, target: Path) -> None:
        person = self._options.attention_person
        if len(prediction) < (person or 1):
            # No failure, but the user may look for the file.
            who = "nobody" if person is None else f"no person {person}"
            report(f"{frame.item.source}: there is {who} to draw the attention of.")
            return
        with self._progress.stopwatch.measure("draw"):
            people = None if person is None else [person - 1]
            drawn = draw_attention(frame.image, prediction, people)
        self._save(drawn, target)

    def _save_maps(self, frame: Frame, prediction: PosePrediction, target: Path) -> None:
        with self._progress.stopwatch.measure("draw"):
            drawn = draw_maps(frame.image, prediction)
        self._save(drawn, target)

    def _save(self, image: np.ndarray, target: Path) -> None:
        """Writes an image; one that cannot be written does not stop the demo."""
        quality = _QUALITY.get(target.suffix.lower())
        options = {} if quality is None else {"quality": quality}
        try:
            with self._progress.stopwatch.measure("write"), atomic_file(target) as path:
                Image.fromarray(image).save(path, **options)
            self._progress.written.append(target)
        except (OSError, ValueError) as error:
            self._progress.fail(f"{target} could not be written: {error}")

    def _record(self, frame: Frame, prediction: PosePrediction) -> None:
        if self._records is None:
            return
        image_id = self._image_id_of(frame.item, self.num_recorded)
        origin: dict[str, Any] = {"image_id": image_id, "source": frame.item.source}
        if frame.index is not None:
            origin |= {"frame": frame.index, "time": round(frame.seconds, 4)}
        with self._progress.stopwatch.measure("record"):
            self._records.add(origin, prediction)
        self.num_recorded += 1

    def _show(self, drawn: np.ndarray, wait: bool) -> None:
        window = self._options.window
        if window is not None and not window.show(drawn, wait):
            self._progress.interruption.requested = True
