"""Detectron2's Visualizer for poses, drawn by OpenCV.

Detectron2 draws with matplotlib, which takes about fifty times as long: too long for videos. Images
and videos are drawn alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer

from querypose import drawable
from querypose.inference.score_scale import ScoreScale
from querypose.visualization.canvas import OpenCVImage, person_color
from querypose.visualization.labels import Color, draw_text, place_label, text_size

_UNMEASURED = ScoreScale()
_PART_OPACITY = 0.4
_KEYPOINT_RIM_COLOR = (32, 32, 32)


class PoseVisualizer(Visualizer):
    """Draws people on an image.

    Boxes, keypoints and the rims of limbs have the color of the person, which stays the same while
    the person is tracked; limbs have the color of their side of the body
    (``keypoint_connection_rules``). Larger people have wider lines. Small people are drawn over
    large ones, labels over everybody. ``draw_instance_predictions``, ``draw_dataset_dict`` and
    ``overlay_instances`` work as in Detectron2's Visualizer, without masks.

    Args:
        img_rgb: (H, W, 3) RGB, 0..255; it is not changed.
        metadata: of the dataset: ``keypoint_names``, ``keypoint_connection_rules`` and, to draw
            parts, ``keypoint_parts``.
        draw: some of :data:`querypose.drawable.PERSON`.
        keypoint_threshold: keypoints that do not score higher are left out, with their limbs. A
            score is one minus the mean predicted deviation in units of the person's box: at 0.7
            the model expects an error of three tenths of the box.
        score_scale: of the model, says how scores are written; by default they are written as
            they are.

    Raises:
        ValueError: ``draw`` contains something else.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Any,
        *,
        draw: Collection[str] = drawable.DEFAULT,
        keypoint_threshold: float = 0.7,
        score_scale: ScoreScale = _UNMEASURED,
    ) -> None:
        unknown = set(draw) - set(drawable.PERSON)
        if unknown:
            raise ValueError(
                f"Only {drawable.PERSON} can be drawn of a person, not {sorted(unknown)}."
            )
        # The inherited __init__ would set up a matplotlib figure.
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = metadata
        self.output = OpenCVImage(self.img)
        self.draw = frozenset(draw)
        self.keypoint_threshold = keypoint_threshold
        self.score_scale = score_scale
        self._instance_mode = ColorMode.IMAGE
        names = list(metadata.get("keypoint_names") or ())
        self._limbs = [
            (names.index(start), names.index(end), tuple(color))
            for start, end, color in metadata.get("keypoint_connection_rules") or ()
        ]
        self._parts = [
            [names.index(name) for name in part] for part in metadata.get("keypoint_parts") or ()
        ]

    def draw_instance_predictions(
        self, predictions: Instances, jittering: bool = True
    ) -> OpenCVImage:
        """Draws a model's output.

        Args:
            predictions: on the CPU, with ``pred_boxes``, ``scores``, ``pred_keypoints`` and, if
                people are tracked, ``track_ids``.
            jittering: has no effect; the colors of people always differ.
        """
        ids: list[int | None] = [None] * len(predictions)
        if predictions.has("track_ids"):
            ids = predictions.track_ids.tolist()
        labels = [
            self._label(track_id, score)
            for track_id, score in zip(ids, predictions.scores.tolist(), strict=True)
        ]
        colors = [
            person_color(row if track_id is None else track_id) for row, track_id in enumerate(ids)
        ]
        return self.overlay_instances(
            boxes=predictions.pred_boxes,
            labels=labels,
            keypoints=predictions.pred_keypoints,
            assigned_colors=[tuple(value / 255 for value in color) for color in colors],
        )

    def _label(self, track_id: int | None, score: float) -> str:
        words = [] if track_id is None else [f"#{track_id}"]
        if "scores" in self.draw:
            words.append(self.score_scale.label(score))
        return " ".join(words)

    def overlay_instances(
        self,
        *,
        boxes: Any = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        keypoints: Any = None,
        assigned_colors: Sequence[tuple[float, float, float]] | None = None,
        alpha: float = 0.5,
    ) -> OpenCVImage:
        """Draws people, largest first, then their labels.

        Args:
            boxes: ``Boxes`` or (n, 4) xyxy; None takes the bounds of the keypoints.
            labels: one per person; empty ones are not drawn.
            masks: has no effect.
            keypoints: ``Keypoints`` or (n, K, 3): x, y, score or visibility.
            assigned_colors: RGB in 0..1, one per person.
            alpha: has no effect.
        """
        if boxes is None and keypoints is None:
            return self.output
        points = None if keypoints is None else np.asarray(self._convert_keypoints(keypoints))
        corners = _bounds(points) if boxes is None else np.asarray(self._convert_boxes(boxes))
        corners = corners.reshape(-1, 4)
        colors = [person_color(index) for index in range(len(corners))]
        if assigned_colors is not None:
            colors = [tuple(round(255 * v) for v in color) for color in assigned_colors]
        sizes = np.sqrt((corners[:, 2:] - corners[:, :2]).clip(min=0).prod(axis=1))
        widths = [_line_width(size) for size in sizes]
        order = np.argsort(-sizes, kind="stable").tolist()
        if "boxes" in self.draw and boxes is not None:
            for person in order:
                self.output.draw_box(corners[person], colors[person], widths[person] // 2)
        if points is not None and "parts" in self.draw:
            self._draw_parts(points[order], [widths[person] for person in order])
        if points is not None and "skeleton" in self.draw:
            for person in order:
                self._draw_skeleton(points[person], colors[person], widths[person])
        if labels is not None:
            self._draw_labels(labels, corners, colors)
        return self.output

    def draw_and_connect_keypoints(self, keypoints: Any) -> OpenCVImage:
        """Draws one person without a box, (K, 3): x, y, score."""
        return self.overlay_instances(keypoints=np.asarray(keypoints)[None])

    def _draw_parts(self, people: np.ndarray, widths: Sequence[int]) -> None:
        """Blends in the hull of every part's keypoints, with a thick rim."""
        opaque = OpenCVImage(self.output.pixels)
        for keypoints, width in zip(people, widths, strict=True):
            visible = keypoints[:, 2] > self.keypoint_threshold
            for index, part in enumerate(self._parts):
                members = [keypoint for keypoint in part if visible[keypoint]]
                if members:
                    opaque.draw_hull(keypoints[members, :2], person_color(index), 5 * width)
        self.output.pixels = cv2.addWeighted(
            opaque.pixels, _PART_OPACITY, self.output.pixels, 1 - _PART_OPACITY, 0
        )

    def _draw_skeleton(self, keypoints: np.ndarray, color: Color, width: int) -> None:
        points = keypoints[:, :2].tolist()
        visible = (keypoints[:, 2] > self.keypoint_threshold).tolist()
        limbs = [limb for limb in self._limbs if visible[limb[0]] and visible[limb[1]]]
        rim = max(2, width // 2)
        for start, end, _ in limbs:
            self.output.draw_line(points[start], points[end], color, width + rim)
        for start, end, limb_color in limbs:
            self.output.draw_line(points[start], points[end], limb_color, width)
        radius = max(1.5, 0.8 * width)
        for point, is_visible in zip(points, visible, strict=True):
            if is_visible:
                self.output.draw_disc(point, radius + 1, _KEYPOINT_RIM_COLOR)
                self.output.draw_disc(point, radius, color)

    def _draw_labels(
        self, labels: Sequence[str], boxes: np.ndarray, colors: Sequence[Color]
    ) -> None:
        height, width = self.output.pixels.shape[:2]
        scale = float(np.clip(np.sqrt(height * width) / 1400, 0.4, 2.0))
        taken: list[tuple[int, int, int, int]] = []
        for label, box, color in zip(labels, boxes.tolist(), colors, strict=True):
            if not label:
                continue
            size = text_size(label, scale)
            left, top = place_label(box, size, taken, (height, width))
            taken.append((left, top, left + size[0], top + size[1]))
            draw_text(self.output.pixels, label, (left, top), scale, color)


def _line_width(size: float) -> int:
    """Pixels, for a person whose box has this size (square root of its area)."""
    return int(np.clip(round(size / 60), 1, 12))


def _bounds(keypoints: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy boxes that enclose (n, K, 3) keypoints."""
    return np.concatenate([keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)], axis=1)
