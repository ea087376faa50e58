"""Commands beside training: ``python -m querypose.tools.NAME``."""
