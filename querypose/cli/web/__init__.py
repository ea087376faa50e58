"""The page of ``querypose-demo --web``."""
