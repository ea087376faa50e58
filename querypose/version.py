"""The package's version, readable without importing it."""

__version__ = "0.1.0"
