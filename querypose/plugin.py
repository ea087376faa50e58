"""What importing the package registers with Detectron2, and the names that it offers."""

import warnings
from importlib.util import find_spec

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    # Any other name is of a module that Detectron2 itself lacks.
    if error.name not in (None, "detectron2"):
        raise
    raise ModuleNotFoundError(
        "querypose is a plugin of Detectron2, which is not installed here: install it as "
        "https://detectron2.readthedocs.io describes, or run `make setup` in a clone of querypose."
    ) from error

with warnings.catch_warnings():
    # Detectron2 uses torch.jit.script, which newer PyTorch versions deprecate.
    warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
    from querypose import data, modeling

from querypose.config import add_querypose_config
from querypose.data import register_coco_keypoints
from querypose.inference import PosePredictor
from querypose.skeleton import Skeleton

# Generated people are drawn with OpenCV, which not every Detectron2 user has.
if find_spec("cv2") is not None:
    from querypose import synthetic  # noqa: F401

__all__ = [
    "PosePredictor",
    "Skeleton",
    "add_querypose_config",
    "data",
    "modeling",
    "register_coco_keypoints",
]
