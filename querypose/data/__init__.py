"""Datasets and mappers; importing this package registers the built-in datasets."""

from querypose.data import datasets
from querypose.data.affine_mapper import PoseAffineMapper
from querypose.data.datasets.coco import register_coco_keypoints
from querypose.data.mapper import QueryPoseDatasetMapper
from querypose.data.mapper_registry import MAPPER_REGISTRY, build_train_mapper

__all__ = [
    "MAPPER_REGISTRY",
    "PoseAffineMapper",
    "QueryPoseDatasetMapper",
    "build_train_mapper",
    "datasets",
    "register_coco_keypoints",
]
