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
    """Compares people with those of another answer whose keypoints are closest.

    Of people with equal scores, rounding decides who comes first.
    """
    pixels, scores, people = [0.0], [0.0], 0
    for image in range(len(expected.valid)):
        these, those = (
            (answer.keypoints[image, valid], answer.scores[image, valid])
            for answer, valid in ((found, found.valid[image]), (expected, expected.valid[image]))
        )
        if len(these[0]) != len(those[0]):
            return Difference(np.inf, np.inf, people)
        if not len(those[0]):
            continue
        distances = (those[0][:, None, :, :2] - these[0][None, ..., :2]).abs().amax(dim=(2, 3))
        nearest = distances.argmin(dim=1)
        pixels.append(float(distances.amin(dim=1).max()))
        scores.append(float((those[1] - these[1][nearest]).abs().max()))
        scores.append(float((those[0][..., 2] - these[0][nearest][..., 2]).abs().max()))
        people += len(nearest)
    return Difference(max(pixels), max(scores), people)
