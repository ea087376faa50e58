"""One file a dataset; importing this package registers them."""

from importlib.util import find_spec

from querypose.data.datasets import crowdpose, ochuman

# Generated people are drawn by OpenCV, which not every Detectron2 user has.
if find_spec("cv2") is not None:
    from querypose.data.datasets import synthetic  # noqa: F401

__all__ = ["crowdpose", "ochuman"]
