"""One file a dataset; importing this package registers them."""

from querypose.data.datasets import crowdpose, ochuman

__all__ = ["crowdpose", "ochuman"]
