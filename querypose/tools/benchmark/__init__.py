"""Measures where the time goes: ``python -m querypose.tools.benchmark``."""
