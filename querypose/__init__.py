"""QueryPose for Detectron2. Importing the package registers its models and datasets."""

import sys
from pathlib import Path

from querypose.version import __version__

# These commands check their arguments first, and load PyTorch for the work alone.
if Path(sys.argv[0] if sys.argv else "").stem not in ("querypose-demo", "querypose-predict"):
    from querypose.plugin import (
        PosePredictor,
        Skeleton,
        add_querypose_config,
        data,
        modeling,
        register_coco_keypoints,
    )

__all__ = [
    "PosePredictor",
    "Skeleton",
    "__version__",
    "add_querypose_config",
    "data",
    "modeling",
    "register_coco_keypoints",
]
