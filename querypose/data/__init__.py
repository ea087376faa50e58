"""Datasets and the mapper; importing this package registers the built-in datasets."""

from querypose.data import datasets
from querypose.data.datasets.coco import register_coco_keypoints
from querypose.data.mapper import QueryPoseDatasetMapper

__all__ = ["QueryPoseDatasetMapper", "datasets", "register_coco_keypoints"]
