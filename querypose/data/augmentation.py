"""What happens to a picture and its people before training sees them."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils


class PeopleRotationTransform(T.RotationTransform):
    """A rotation after which boxes stay close to people.

    The corners of a box are empty: Detectron2's transform, which encloses them, would add as much
    as 40 % to each side. The box of the rotated inscribed ellipse is nearer to the person's.
    """

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Rotates (N, 4) xyxy boxes, in pixels."""
        box = np.asarray(box, dtype=float).reshape(-1, 4)
        centre = self.apply_coords((box[:, :2] + box[:, 2:]) / 2)
        cos, sin = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        width, height = np.split(box[:, 2:] - box[:, :2], 2, axis=1)
        half = np.hstack([np.hypot(width * cos, height * sin), np.hypot(width * sin, height * cos)])
        return np.hstack([centre - half / 2, centre + half / 2])


class RandomPeopleRotation(T.Augmentation):
    """Rotates about the picture's centre; what leaves the picture is lost.

    Args:
        degrees: largest angle to either side.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws an angle for a (H, W, 3) picture."""
        angle = np.random.uniform(-self.degrees, self.degrees)
        return PeopleRotationTransform(*image.shape[:2], angle, expand=False)


def build_train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Detectron2's flip and resize, and what ``INPUT`` asks for beyond them.

    Raises:
        ValueError: a strength or a range makes no sense.
    """
    node = cfg.INPUT
    resize, *flip = utils.build_augmentation(cfg, is_train=True)
    sizes = _scale_jitter(node.SCALE_JITTER) if node.SCALE_JITTER.ENABLED else [resize]
    rotation = [RandomPeopleRotation(node.ROTATION.DEGREES)]
    return [
        *_sometimes(node.ROTATION.PROBABILITY, rotation),
        *sizes,
        *flip,
        *_color_jitter(node.COLOR_JITTER),
    ]


def build_crop_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """DETR's resize and random crop; empty where ``INPUT.CROP`` is off."""
    if not cfg.INPUT.CROP.ENABLED:
        return []
    return [
        T.ResizeShortestEdge(cfg.INPUT.CROP.RESIZE_MIN_SIZES, sample_style="choice"),
        T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE),
    ]


def _sometimes(probability: float, augmentations: list[T.Augmentation]) -> list[T.Augmentation]:
    if not 0 <= probability <= 1:
        raise ValueError(f"INPUT.ROTATION.PROBABILITY is between 0 and 1, not {probability}.")
    return [T.RandomApply(a, probability) for a in augmentations] if probability else []


def _scale_jitter(node: CfgNode) -> list[T.Augmentation]:
    """Large-scale jitter (Ghiasi et al., CVPR 2021); smaller pictures are not padded."""
    (low, high), (height, width) = node.RANGE, node.SIZE
    if not 0 < low <= high:
        raise ValueError(f"INPUT.SCALE_JITTER.RANGE is (low, high), not {tuple(node.RANGE)}.")
    return [
        T.ResizeScale(low, high, height, width),
        T.FixedSizeCrop((height, width), pad=False),
    ]


def _color_jitter(strength: float) -> list[T.Augmentation]:
    if not 0 <= strength < 1:
        raise ValueError(f"INPUT.COLOR_JITTER is in [0, 1), not {strength}.")
    if not strength:
        return []
    low, high = 1 - strength, 1 + strength
    return [
        T.RandomBrightness(low, high),
        T.RandomContrast(low, high),
        T.RandomSaturation(low, high),
    ]
