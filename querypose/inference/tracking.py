"""Steady identities: which person of a frame is which of the frames before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_area, box_iou

from querypose.oks import paired_oks

# How much of a newly seen motion enters a track's velocity.
_VELOCITY_MOMENTUM = 0.5
# Of a pair of keypoints: where no score is above 0 all count alike.
_SMALLEST_WEIGHT = 1e-9


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
        """Moves on to the next frame as the person has been moving."""
        self.age += 1
        self.box = self.box + np.tile(self.velocity, 2)
        self.keypoints = self.keypoints + np.append(self.velocity, 0)

    def meet(self, box: np.ndarray, keypoints: np.ndarray) -> None:
        """Takes a new observation; ``age`` says how many frames the prediction was ahead."""
        surprise = (_center(box) - _center(self.box)) / self.age
        self.velocity = self.velocity + _VELOCITY_MOMENTUM * surprise
        self.box, self.keypoints, self.age = box, keypoints, 0


class PoseTracker:
    """Gives people ids that stay over the frames of one video.

    A track moves on at a constant velocity and is matched with the people of a frame by the mean
    of box IoU and object keypoint similarity, best in total (Hungarian method).

    Args:
        sigmas: OKS deviation per keypoint, (K,); see :class:`querypose.Skeleton`.
        min_similarity: a match of less, in 0..1, is none.
        max_age: frames after which an unseen person is forgotten.
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
            (n,) int64 ids, from 1, one for each person.
        """
        boxes = instances.pred_boxes.tensor.cpu().numpy().astype(float)
        keypoints = instances.pred_keypoints.cpu().numpy().astype(float)
        for track in self._tracks:
            track.advance()
        ids = [0] * len(boxes)
        for track, person in self._matches(boxes, keypoints):
            track.meet(boxes[person], keypoints[person])
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
        # What may not be matched must not push others aside.
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
    """(M, N) mean of box IoU and OKS; keypoints (M, K, 3) and (N, K, 3) count by both scores."""
    weights = (known[:, None, :, 2] * found[None, :, :, 2]).clamp(min=_SMALLEST_WEIGHT)
    areas = box_area(boxes)[None].expand(len(known), -1)
    oks = paired_oks(known[:, None, :, :2], found[None, :, :, :2], areas, sigmas, weights)
    # Two boxes without area have no overlap to speak of.
    return (box_iou(known_boxes, boxes).nan_to_num() + oks) / 2
