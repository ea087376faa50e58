"""What can be drawn, as the commands name it."""

PERSON = ("boxes", "skeleton", "scores", "parts")
"""Drawn of a person into the image."""

EXTRAS = ("attention", "maps")
"""Drawn to a file of its own: where a person's parts looked, and a dense model's maps."""

DEFAULT = frozenset({"boxes", "skeleton"})
"""Drawn unless something else is asked for. Scores rank people but are no probabilities."""
