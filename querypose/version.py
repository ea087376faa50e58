"""The package's version, readable without importing it."""

__version__ = "0.2.0"
