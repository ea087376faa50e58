"""Trains several configs alike and compares what they learn."""
