"""Further commands: ``python -m querypose.tools.NAME``."""
