"""Compares an ONNX file with the model that it was exported from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from detectron2.structures import Instances
from torch import Tensor

from querypose.export.detector import OnnxDetector
from querypose.modeling.pose_model import PeopleBatch, PoseModel


class Difference(NamedTuple):
    """The largest differences between two answers for the same images.

    Attributes:
        pixels: of keypoints.
        scores: of people and keypoints.
        people: that were compared.
    """

    pixels: float
    scores: float
    people: int


def batch_of(people: Instances) -> PeopleBatch:
    """The people of one image as a batch of one."""
    return PeopleBatch(
        people.pred_boxes.tensor[None],
        people.scores[None],
        people.pred_keypoints[None],
        torch.ones(1, len(people), dtype=torch.bool),
        people.pred_classes[None],
    )


def check_file(path: Path) -> None:
    """Checks a file against the ONNX standard, with the shapes of all tensors.

    Raises:
        onnx.checker.ValidationError: it does not fit.
    """
    onnx.checker.check_model(str(path), full_check=True)


@torch.no_grad()
def compare_with_model(path: Path, model: PoseModel, max_people: int, images: Tensor) -> Difference:
    """Compares what a file and its model find in (B, 3, H, W) images."""
    expected = model.detect_at_most(
        model.preprocess_tensor(images),
        torch.tensor([images.shape[2:]] * len(images)).float(),
        max_people,
    )
    return compare(OnnxDetector(path).people(images.numpy()), expected)


def compare(found: PeopleBatch, expected: PeopleBatch) -> Difference:
    """Compares people with those of another answer, of their class, whose keypoints are closest.

    A person without such a counterpart is infinitely far off. Of people with equal scores, rounding
    decides who comes first.
    """
    pixels, scores, people = [0.0], [0.0], 0
    for image in range(len(expected.valid)):
        these, those = (
            PeopleBatch(*(field[image, answer.valid[image]] for field in answer))
            for answer in (found, expected)
        )
        if len(these.valid) != len(those.valid):
            return Difference(np.inf, np.inf, people)
        if not len(those.valid):
            continue
        offsets = those.keypoints[:, None, :, :2] - these.keypoints[None, ..., :2]
        same_class = those.classes[:, None] == these.classes
        distances = torch.where(same_class, offsets.abs().amax(dim=(2, 3)), torch.inf)
        nearest = distances.argmin(dim=1)
        pixels.append(float(distances.amin(dim=1).max()))
        scores.append(float((those.scores - these.scores[nearest]).abs().max()))
        differences = those.keypoints[..., 2] - these.keypoints[nearest][..., 2]
        scores.append(float(differences.abs().max()))
        people += len(nearest)
    return Difference(max(pixels), max(scores), people)
