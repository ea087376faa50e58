"""The default config: Detectron2's keys and the package's own."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from querypose.config.data import add_data_config
from querypose.config.dense import add_dense_config
from querypose.config.shared import add_shared_config
from querypose.config.solver import add_solver_config
from querypose.config.sparse import add_sparse_config


def default_config() -> CfgNode:
    """Detectron2's defaults with QueryPose's keys added."""
    cfg = get_cfg()
    add_querypose_config(cfg)
    return cfg


def add_querypose_config(cfg: CfgNode) -> None:
    """Adds QueryPose's keys to a Detectron2 config, in place.

    Detectron2's own defaults stay as they are: ``configs/Base-QueryPose.yaml`` sets what QueryPose
    needs of them (pooling under ``ROI_BOX_HEAD`` and ``ROI_KEYPOINT_HEAD``, RGB input, AdamW).
    """
    add_shared_config(cfg)
    add_sparse_config(cfg)
    add_dense_config(cfg)
    add_data_config(cfg)
    add_solver_config(cfg)
