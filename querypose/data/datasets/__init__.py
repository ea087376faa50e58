"""The built-in datasets, one per file; importing this package registers them."""

from querypose.data.datasets import crowdpose, ochuman

__all__ = ["crowdpose", "ochuman"]
