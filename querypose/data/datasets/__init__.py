"""One file a dataset; importing this package registers them."""

from querypose.data.datasets import synthetic

__all__ = ["synthetic"]
