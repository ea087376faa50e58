"""Tracking of people from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_area, box_iou

from querypose.oks import boxes_with_extent, paired_oks

# The fraction of the error in the predicted motion that corrects the velocity.
_VELOCITY_GAIN = 0.5
# Of a pair of keypoints: if all scores are 0, all pairs weigh the same.
_MIN_WEIGHT = 1e-9


@dataclass
class _Track:
    """A person's last known pose.

    Attributes:
        track_id: from 1.
        box: (4,) xyxy pixels.
        keypoints: (K, 3): x, y, score.
        velocity: (2,) pixels a frame, of the box's center.
        age: frames since the person was last seen.
    """

    track_id: int
    box: np.ndarray
    keypoints: np.ndarray
    velocity: np.ndarray
    age: int = 0

    def advance(self) -> None:
        """Moves to the next frame at constant velocity."""
        self.age += 1
        self.box = self.box + np.tile(self.velocity, 2)
        self.keypoints = self.keypoints + np.append(self.velocity, 0)

    def observe(self, box: np.ndarray, keypoints: np.ndarray) -> None:
        """Updates the track with the pose of the person in the current frame."""
        error = (_center(box) - _center(self.box)) / self.age
        self.velocity = self.velocity + _VELOCITY_GAIN * error
        self.box, self.keypoints, self.age = box, keypoints, 0


class PoseTracker:
    """Gives people ids that stay the same through one video.

    Tracks move at constant velocity. They are matched with the people of a frame so that the sum of
    the similarities, each the mean of box IoU and OKS, is highest (Hungarian method). A box without
    width or height counts as wider, see :func:`querypose.oks.boxes_with_extent`.

    Args:
        sigmas: OKS deviation per keypoint, (K,); see :class:`querypose.Skeleton`.
        min_similarity: of a match, in 0..1.
        max_age: number of frames after which an unseen person is forgotten.
    """

    def __init__(
        self, sigmas: Sequence[float], *, min_similarity: float = 0.15, max_age: int = 15
    ) -> None:
        self.sigmas = np.asarray(sigmas, dtype=float)
        self.min_similarity = min_similarity
        self.max_age = max_age
        self._tracks: list[_Track] = []
        self._next_id = 1

    def update(self, instances: Instances) -> Tensor:
        """Assigns the people of the next frame to tracks.

        Args:
            instances: with ``pred_boxes`` and ``pred_keypoints``, in pixels of the frame.

        Returns:
            (n,) int64, the id of each person, from 1.
        """
        boxes = boxes_with_extent(instances.pred_boxes.tensor, instances.image_size)
        boxes = boxes.cpu().numpy().astype(float)
        keypoints = instances.pred_keypoints.cpu().numpy().astype(float)
        for track in self._tracks:
            track.advance()
        ids = [0] * len(boxes)
        for track, person in self._matches(boxes, keypoints):
            track.observe(boxes[person], keypoints[person])
            ids[person] = track.track_id
        for person, track_id in enumerate(ids):
            if track_id == 0:
                ids[person] = self._start(boxes[person], keypoints[person])
        self._tracks = [track for track in self._tracks if track.age <= self.max_age]
        return torch.tensor(ids, dtype=torch.int64)

    def _start(self, box: np.ndarray, keypoints: np.ndarray) -> int:
        self._tracks.append(_Track(self._next_id, box, keypoints, np.zeros(2)))
        self._next_id += 1
        return self._tracks[-1].track_id

    def _matches(self, boxes: np.ndarray, keypoints: np.ndarray) -> list[tuple[_Track, int]]:
        if not self._tracks or not len(boxes):
            return []
        known_boxes = np.stack([track.box for track in self._tracks])
        known_keypoints = np.stack([track.keypoints for track in self._tracks])
        poses = (known_boxes, known_keypoints, boxes, keypoints, self.sigmas)
        similarity = _similarity(*map(torch.as_tensor, poses)).numpy()
        # Similarities too low for a match must not influence the others.
        similarity = np.where(similarity < self.min_similarity, 0, similarity)
        rows, columns = linear_sum_assignment(similarity, maximize=True)
        return [
            (self._tracks[row], int(column))
            for row, column in zip(rows, columns, strict=True)
            if similarity[row, column] > 0
        ]


def _center(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _similarity(
    known_boxes: Tensor, known: Tensor, boxes: Tensor, found: Tensor, sigmas: Tensor
) -> Tensor:
    """(M, N) means of box IoU and OKS; keypoints (M, K, 3), (N, K, 3) are weighted by score."""
    weights = (known[:, None, :, 2] * found[None, :, :, 2]).clamp(min=_MIN_WEIGHT)
    areas = box_area(boxes)[None].expand(len(known), -1)
    oks = paired_oks(known[:, None, :, :2], found[None, :, :, :2], areas, sigmas, weights)
    return (box_iou(known_boxes, boxes) + oks) / 2
