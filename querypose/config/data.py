"""Keys of datasets and training images: ``DATASETS`` and ``INPUT``."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_data_config(cfg: CfgNode) -> None:
    """Adds keys to ``DATASETS`` and ``INPUT``."""
    # Datasets to register before use: [name, COCO-format JSON, image folder] or
    # [name, JSON, folder, skeleton file].
    cfg.DATASETS.REGISTER = []
    # The class that reads and augments training images; see querypose.data.MAPPER_REGISTRY.
    cfg.INPUT.MAPPER = "QueryPoseDatasetMapper"
    # Change brightness, contrast and saturation by up to this fraction.
    cfg.INPUT.COLOR_JITTER = 0.0
    _add_augmentations(cfg)
    _add_affine(cfg)


def _add_augmentations(cfg: CfgNode) -> None:
    """Of QueryPoseDatasetMapper."""
    # With INPUT.CROP, every second training image is cropped after its shortest edge was resized
    # to one of these.
    cfg.INPUT.CROP.RESIZE_MIN_SIZES = [400, 500, 600]
    # Large-scale jitter instead of a random shortest edge: fit the image into SIZE (height, width)
    # times a number from RANGE, then crop it to SIZE.
    cfg.INPUT.SCALE_JITTER = CfgNode()
    cfg.INPUT.SCALE_JITTER.ENABLED = False
    cfg.INPUT.SCALE_JITTER.SIZE = [512, 512]
    cfg.INPUT.SCALE_JITTER.RANGE = [0.5, 2.0]
    # Rotate by up to DEGREES to either side.
    cfg.INPUT.ROTATION = CfgNode()
    cfg.INPUT.ROTATION.PROBABILITY = 0.0
    cfg.INPUT.ROTATION.DEGREES = 30.0
    # Change the ratio of width to height by up to this fraction.
    cfg.INPUT.ASPECT_JITTER = 0.0
    # Paint over three small rectangles.
    cfg.INPUT.ERASING = CfgNode()
    cfg.INPUT.ERASING.PROBABILITY = 0.0


def _add_affine(cfg: CfgNode) -> None:
    """Of PoseAffineMapper."""
    # Warp a random square to SIZE x SIZE pixels. Its side is ZOOM times the image's short side, it
    # is rotated by up to DEGREES to either side, and its center is moved by up to SHIFT times its
    # side from the image's center.
    node = cfg.INPUT.AFFINE = CfgNode()
    node.SIZE = 512
    node.ZOOM = [0.75, 1.5]
    node.DEGREES = 30.0
    node.SHIFT = 0.2
    # Exclude crowds and persons without labeled keypoints from the losses; False makes them
    # background.
    node.IGNORE_REGIONS = True
    # Standard deviation of AlexNet's PCA lighting, for colors in 0..1.
    cfg.INPUT.LIGHTING = 0.0
