"""Measures the time and memory of models: ``python -m querypose.tools.benchmark``."""
