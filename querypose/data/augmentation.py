"""Augmentations of training images, beyond those of Detectron2."""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils

# Erased rectangles are at most twice as wide as high, and the other way round.
_LOG_LARGEST_RATIO = np.log(2)


class PersonRotationTransform(T.RotationTransform):
    """A rotation that keeps boxes tight around persons.

    A box has no person in its corners. Detectron2's transform encloses the rotated corners, which
    lengthens each side by up to 40 %. This one encloses the rotated ellipse inside the box.
    """

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Rotates (N, 4) xyxy boxes, in pixels."""
        box = np.asarray(box, dtype=float).reshape(-1, 4)
        center = self.apply_coords((box[:, :2] + box[:, 2:]) / 2)
        cos, sin = np.cos(np.deg2rad(self.angle)), np.sin(np.deg2rad(self.angle))
        width, height = np.split(box[:, 2:] - box[:, :2], 2, axis=1)
        half = np.hstack([np.hypot(width * cos, height * sin), np.hypot(width * sin, height * cos)])
        return np.hstack([center - half / 2, center + half / 2])


class RandomPersonRotation(T.Augmentation):
    """Rotates around the image's center and keeps the image's size.

    Args:
        degrees: largest angle to either side.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws an angle for an (H, W, 3) image."""
        angle = np.random.uniform(-self.degrees, self.degrees)
        return PersonRotationTransform(*image.shape[:2], angle, expand=False)


class RandomAspectRatio(T.Augmentation):
    """Changes the ratio of width to height; the area stays the same.

    Args:
        strength: the ratio is multiplied or divided by at most ``1 + strength``.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws a factor for an (H, W, 3) image."""
        limit = np.log1p(self.strength)
        stretch = np.exp(np.random.uniform(-limit, limit) / 2)
        height, width = image.shape[:2]
        size = max(1, round(height / stretch)), max(1, round(width * stretch))
        return T.ResizeTransform(height, width, *size)


class EraseTransform(T.NoOpTransform):
    """Fills rectangles of an image; boxes and keypoints stay.

    Args:
        rectangles: (N, 4) xyxy integers within the image.
        colors: (N, 3), the rectangles' colors, 0..255.
    """

    def __init__(self, rectangles: np.ndarray, colors: np.ndarray) -> None:
        super().__init__()
        self.rectangles = rectangles
        self.colors = colors

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """Returns a changed copy of an (H, W, 3) image."""
        image = image.copy()
        for (left, top, right, bottom), color in zip(self.rectangles, self.colors, strict=True):
            image[top:bottom, left:right] = color
        return image

    def inverse(self) -> T.Transform:
        """Does nothing: coordinates did not change, and erased pixels are lost."""
        return T.NoOpTransform()


class RandomErasing(T.Augmentation):
    """Fills random rectangles, so that hidden keypoints must be inferred from the rest.

    Random erasing (Zhong et al., AAAI 2020) with several small rectangles instead of a large one:
    they hide limbs instead of whole persons.

    Args:
        count: number of rectangles.
        area: smallest and largest area of a rectangle, as a fraction of the image's.
    """

    def __init__(self, count: int = 3, area: tuple[float, float] = (0.01, 0.04)) -> None:
        super().__init__()
        self.count = count
        self.area = area

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draws rectangles and colors for an (H, W, 3) image."""
        height, width = image.shape[:2]
        ratio = np.exp(np.random.uniform(-_LOG_LARGEST_RATIO, _LOG_LARGEST_RATIO, self.count))
        area = np.random.uniform(*self.area, self.count) * height * width
        sizes = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1)
        centers = np.random.uniform(0, 1, (self.count, 2)) * (width, height)
        corners = np.hstack([centers - sizes / 2, centers + sizes / 2])
        rectangles = corners.clip(0, [width, height] * 2).round().astype(int)
        return EraseTransform(rectangles, np.random.randint(0, 256, (self.count, 3)))


def is_mirrored(transforms: T.TransformList) -> bool:
    """Whether what was left is right afterwards.

    An image upside down is a mirror image, too; one that is flipped both ways is only turned.
    """
    flips = T.HFlipTransform, T.VFlipTransform
    return sum(isinstance(each, flips) for each in transforms.transforms) % 2 == 1


def build_train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Detectron2's flip and resize, and the augmentations that ``INPUT`` turns on.

    Raises:
        ValueError: a strength or a range is out of bounds.
    """
    node = cfg.INPUT
    resize, *flip = utils.build_augmentation(cfg, is_train=True)
    sizes = _scale_jitter(node.SCALE_JITTER) if node.SCALE_JITTER.ENABLED else [resize]
    rotation = RandomPersonRotation(node.ROTATION.DEGREES)
    return [
        *_sometimes("INPUT.ROTATION.PROBABILITY", node.ROTATION.PROBABILITY, rotation),
        *_aspect_jitter(node.ASPECT_JITTER),
        *sizes,
        *flip,
        *_color_jitter(node.COLOR_JITTER),
        *_sometimes("INPUT.ERASING.PROBABILITY", node.ERASING.PROBABILITY, RandomErasing()),
    ]


class RandomOrder(T.Augmentation):
    """Applies all augmentations, in a new random order for every image.

    Args:
        augmentations: in any order.
    """

    def __init__(self, augmentations: Sequence[T.Augmentation]) -> None:
        super().__init__()
        self.augmentations = augmentations

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        """Changes the input in place and returns the transform."""
        order = np.random.permutation(len(self.augmentations))
        return T.AugmentationList([self.augmentations[index] for index in order])(aug_input)


def build_photometric_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.COLOR_JITTER`` in random order, then ``INPUT.LIGHTING``.

    Raises:
        ValueError: a strength is out of bounds.
    """
    jitter, lighting = _color_jitter(cfg.INPUT.COLOR_JITTER), cfg.INPUT.LIGHTING
    if lighting < 0:
        raise ValueError(f"INPUT.LIGHTING must not be negative, got {lighting}.")
    return [
        *([RandomOrder(jitter)] if jitter else []),
        # Detectron2 adds the same amount whether colors are in 0..1 or in 0..255.
        *([T.RandomLighting(255 * lighting)] if lighting else []),
    ]


def build_crop_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """DETR's resize and random crop; empty where ``INPUT.CROP`` is off."""
    if not cfg.INPUT.CROP.ENABLED:
        return []
    return [
        T.ResizeShortestEdge(cfg.INPUT.CROP.RESIZE_MIN_SIZES, sample_style="choice"),
        T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE),
    ]


def _sometimes(key: str, probability: float, augmentation: T.Augmentation) -> list[T.Augmentation]:
    if not 0 <= probability <= 1:
        raise ValueError(f"{key} must be between 0 and 1, got {probability}.")
    return [T.RandomApply(augmentation, probability)] if probability else []


def _aspect_jitter(strength: float) -> list[T.Augmentation]:
    if strength < 0:
        raise ValueError(f"INPUT.ASPECT_JITTER must not be negative, got {strength}.")
    return [RandomAspectRatio(strength)] if strength else []


def _scale_jitter(node: CfgNode) -> list[T.Augmentation]:
    """Large-scale jitter (Ghiasi et al., CVPR 2021); smaller images are not padded."""
    (low, high), (height, width) = node.RANGE, node.SIZE
    if not 0 < low <= high:
        raise ValueError(f"INPUT.SCALE_JITTER.RANGE must be [low, high], got {list(node.RANGE)}.")
    return [
        T.ResizeScale(low, high, height, width),
        T.FixedSizeCrop((height, width), pad=False),
    ]


def _color_jitter(strength: float) -> list[T.Augmentation]:
    if not 0 <= strength < 1:
        raise ValueError(f"INPUT.COLOR_JITTER must be at least 0 and below 1, got {strength}.")
    if not strength:
        return []
    low, high = 1 - strength, 1 + strength
    return [
        T.RandomBrightness(low, high),
        T.RandomContrast(low, high),
        T.RandomSaturation(low, high),
    ]
