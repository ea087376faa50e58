"""What an ONNX file says of itself: all that is needed to feed it and to draw its poses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from onnx import ModelProto

from querypose.config import config_to_json
from querypose.modeling.pose_model import PoseModel
from querypose.version import __version__

_PACKAGED = "Apache-2.0, as far as it is ours to license: see docs/licenses.md of querypose"
_OTHER = "the graph: Apache-2.0; the weights: as whoever trained them says"


def describe(
    proto: ModelProto,
    cfg: CfgNode,
    model: PoseModel,
    *,
    category_ids: Sequence[int | str],
    is_packaged: bool,
    **settings: Any,
) -> None:
    """Writes ``metadata_props`` of JSON values into a model, in place.

    Args:
        proto: the exported model.
        cfg: of the model.
        model: whose skeleton is written.
        category_ids: of the classes, see :class:`querypose.checkpoint.ModelDescription`.
        is_packaged: whether the weights are those that come with the package.
        settings: of the export, by name.
    """
    skeleton = model.skeleton
    fields = {
        "format": "querypose-onnx-1",
        "version": __version__,
        "method": cfg.MODEL.META_ARCHITECTURE,
        "backbone": _backbone(cfg),
        "license": _PACKAGED if is_packaged else _OTHER,
        "channel_order": cfg.INPUT.FORMAT,
        # Shortest edge, and limit of the longest one, of resized images; 0 keeps their size.
        "size_rule": {"shortest_edge": cfg.INPUT.MIN_SIZE_TEST, "limit": cfg.INPUT.MAX_SIZE_TEST},
        "score_threshold": cfg.DEMO.CONFIDENCE_THRESHOLD,
        "keypoint_threshold": cfg.DEMO.KEYPOINT_THRESHOLD,
        "keypoints": skeleton.keypoints,
        "edges": skeleton.edges,
        "edge_colors": [color for *_, color in skeleton.metadata()["keypoint_connection_rules"]],
        "flips": skeleton.flips,
        "sigmas": skeleton.sigmas,
        "skeleton": skeleton.to_dict(),
        "category_ids": list(category_ids),
        "config": json.loads(config_to_json(cfg)),
        **settings,
    }
    for name, value in fields.items():
        proto.metadata_props.add(key=name, value=json.dumps(value))


def _backbone(cfg: CfgNode) -> str:
    return cfg.MODEL.BACKBONE.NAME.removeprefix("build_").removesuffix("_backbone")
