"""Detectron2's Visualizer for poses, drawn by OpenCV.

Detectron2 draws with matplotlib, which takes some fifty times as long. A video cannot wait for it,
and two ways of drawing would look different; so images and videos share this one, behind
Detectron2's interface.
"""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer
from PIL import Image

from querypose.visualization.labels import Color, draw_text, place_label, text_size

DRAWABLE = ("boxes", "skeleton", "scores", "parts")
"""What :class:`PoseVisualizer` can draw of a person."""

# OpenCV takes coordinates in fractions of a pixel as integers.
_FRACTION_BITS = 4
# The golden section of the color circle keeps any number of neighbors apart.
_HUE_STEP = 0.618034
_PART_OPACITY = 0.4
_DEFAULT_LIMB_COLOR = (102, 204, 102)


def person_color(index: int) -> Color:
    """A bright RGB color (0..255) for a person or a part; neighboring numbers differ clearly."""
    red, green, blue = colorsys.hsv_to_rgb((0.12 + index * _HUE_STEP) % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


class OpenCVImage(VisImage):
    """Detectron2's output image, held as an array that OpenCV draws on."""

    def _setup_figure(self, img: np.ndarray) -> None:
        self.reset_image(img)

    def reset_image(self, img: np.ndarray) -> None:
        """Starts anew from an RGB image (H, W, 3)."""
        self.pixels = np.array(img, dtype=np.uint8, order="C")

    def save(self, filepath: str) -> None:
        """Writes the image in the format that the name ends with."""
        Image.fromarray(self.pixels).save(filepath)

    def get_image(self) -> np.ndarray:
        """The drawn image, (H, W, 3) uint8 RGB."""
        return self.pixels


class PoseVisualizer(Visualizer):
    """Draws people on an image.

    Limbs have the color of the body's side (``keypoint_connection_rules``) and a rim of the
    person's color, as have keypoints and boxes; a tracked person keeps a color. Lines are
    as wide as the person's size asks for. Small people are drawn over large ones, labels over all.
    Of Detectron2's Visualizer it has ``draw_instance_predictions``, ``draw_dataset_dict`` and
    ``overlay_instances``; masks are left out.

    Args:
        img_rgb: (H, W, 3) RGB, 0..255; left as it is.
        metadata: of the dataset: ``keypoint_names``, ``keypoint_connection_rules`` and, for
            drawing parts, ``keypoint_parts``.
        draw: what to draw, of :data:`DRAWABLE`.
        keypoint_threshold: keypoints that do not score higher are left out, with their limbs. A
            score is one minus the mean predicted deviation, in units of the person's box: at 0.7
            the model expects to be off by three tenths of the box.

    Raises:
        ValueError: ``draw`` names something else.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Any,
        *,
        draw: Collection[str] = ("boxes", "skeleton", "scores"),
        keypoint_threshold: float = 0.7,
    ) -> None:
        unknown = set(draw) - set(DRAWABLE)
        if unknown:
            raise ValueError(f"Only {DRAWABLE} can be drawn of a person, not {sorted(unknown)}.")
        # The inherited __init__ would set up a matplotlib figure.
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        self.metadata = metadata
        self.output = OpenCVImage(self.img)
        self.draw = frozenset(draw)
        self.keypoint_threshold = keypoint_threshold
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
            predictions: on the CPU, with ``pred_boxes``, ``scores``, ``pred_keypoints`` and, where
                people are tracked, ``track_ids``.
            jittering: without effect; people's colors always differ.
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
        identity = [] if track_id is None else [f"#{track_id}"]
        return " ".join([*identity, *([f"{score:.0%}"] if "scores" in self.draw else [])])

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
            boxes: ``Boxes`` or (n, 4) xyxy; None takes the keypoints' bounds.
            labels: per person; an empty one is left out.
            masks: without effect.
            keypoints: ``Keypoints`` or (n, K, 3): x, y, score or visibility.
            assigned_colors: RGB in 0..1 per person.
            alpha: without effect.
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
        order = np.argsort(-sizes, kind="stable").tolist()
        if "boxes" in self.draw and boxes is not None:
            for person in order:
                self._rectangle(corners[person], colors[person], _line_width(sizes[person]) // 2)
        if points is not None:
            self._people(points, sizes, colors, order)
        if labels is not None:
            self._labels(labels, corners, colors)
        return self.output

    def draw_and_connect_keypoints(self, keypoints: Any) -> OpenCVImage:
        """Draws one person without a box, (K, 3): x, y, score."""
        return self.overlay_instances(keypoints=np.asarray(keypoints)[None])

    def _people(
        self,
        keypoints: np.ndarray,
        sizes: np.ndarray,
        colors: Sequence[Color],
        order: Sequence[int],
    ) -> None:
        if "parts" in self.draw:
            blended = self.output.pixels.copy()
            for person in order:
                self._part_areas(blended, keypoints[person], _line_width(sizes[person]))
            cv2.addWeighted(
                blended,
                _PART_OPACITY,
                self.output.pixels,
                1 - _PART_OPACITY,
                0,
                dst=self.output.pixels,
            )
        if "skeleton" in self.draw:
            for person in order:
                self._skeleton(keypoints[person], colors[person], _line_width(sizes[person]))

    def _skeleton(self, keypoints: np.ndarray, color: Color, width: int) -> None:
        points = [_fixed_point(x, y) for x, y, _ in keypoints.tolist()]
        seen = (keypoints[:, 2] > self.keypoint_threshold).tolist()
        limbs = [limb for limb in self._limbs if seen[limb[0]] and seen[limb[1]]]
        rim = max(2, width // 2)
        for start, end, _ in limbs:
            self._line(points[start], points[end], color, width + rim)
        for start, end, limb_color in limbs:
            self._line(points[start], points[end], limb_color, width)
        radius = int(max(1.5, 0.8 * width) * 2**_FRACTION_BITS)
        for point, visible in zip(points, seen, strict=True):
            if visible:
                self._disc(point, radius + 2**_FRACTION_BITS, (32, 32, 32))
                self._disc(point, radius, color)

    def _part_areas(self, image: np.ndarray, keypoints: np.ndarray, width: int) -> None:
        """Fills the hull of every part's keypoints, with a thick rim."""
        seen = keypoints[:, 2] > self.keypoint_threshold
        for number, part in enumerate(self._parts):
            members = [index for index in part if seen[index]]
            if not members:
                continue
            points = np.array([_fixed_point(*keypoints[index, :2].tolist()) for index in members])
            hull = cv2.convexHull(points.astype(np.int32))
            color = person_color(number)
            cv2.fillPoly(image, [hull], color, cv2.LINE_AA, _FRACTION_BITS)
            cv2.polylines(image, [hull], True, color, 5 * width, cv2.LINE_AA, _FRACTION_BITS)

    def _labels(self, labels: Sequence[str], corners: np.ndarray, colors: Sequence[Color]) -> None:
        height, width = self.output.pixels.shape[:2]
        scale = float(np.clip(np.sqrt(height * width) / 1400, 0.4, 2.0))
        taken: list[tuple[int, int, int, int]] = []
        for label, box, color in zip(labels, corners.tolist(), colors, strict=True):
            if not label:
                continue
            size = text_size(label, scale)
            left, top = place_label(box, size, taken, (height, width))
            taken.append((left, top, left + size[0], top + size[1]))
            draw_text(self.output.pixels, label, (left, top), scale, color)

    def _rectangle(self, box: np.ndarray, color: Color, width: int) -> None:
        x0, y0, x1, y1 = box.round().astype(int).tolist()
        # The first and the last pixel that the box covers; edges along the grid stay sharp.
        cv2.rectangle(self.output.pixels, (x0, y0), (x1 - 1, y1 - 1), color, max(1, width))

    def _line(self, start: tuple[int, int], end: tuple[int, int], color: Color, width: int) -> None:
        cv2.line(self.output.pixels, start, end, color, width, cv2.LINE_AA, _FRACTION_BITS)

    def _disc(self, center: tuple[int, int], radius: int, color: Color) -> None:
        cv2.circle(
            self.output.pixels, center, radius, color, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS
        )


def _line_width(size: float) -> int:
    """Pixels, for a person whose box has this side (the square root of its area)."""
    return int(np.clip(round(size / 60), 1, 12))


def _fixed_point(x: float, y: float) -> tuple[int, int]:
    """Continuous coordinates for OpenCV, whose whole numbers are pixel centers."""
    # Far outside, where nothing is drawn, OpenCV's 32-bit arithmetic would wrap round.
    limit = 2**15
    scale = 2**_FRACTION_BITS
    return (
        round((min(max(x, -limit), limit) - 0.5) * scale),
        round((min(max(y, -limit), limit) - 0.5) * scale),
    )


def _bounds(keypoints: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy of all keypoints of each of n people."""
    return np.concatenate([keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)], axis=1)
