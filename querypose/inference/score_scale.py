"""Scores as people read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class ScoreScale:
    """Turns scores into the chance that a person is right, where that was measured.

    Scores rank people, but are no probabilities: those of a model that was trained on little data
    are far too low. :mod:`querypose.tools.score_threshold` prints the points of a model.

    Args:
        points: pairs of a score and the share of people of about this score whose OKS with a
            labeled person is at least 0.5 (``DEMO.SCORE_PRECISION``); both increase. Between them
            the share is interpolated, from (0, 0) and to (1, the last share). Empty if nobody has
            measured it.

    Raises:
        ValueError: the points do not increase, or are outside 0..1.
    """

    def __init__(self, points: Sequence[Sequence[float]] = ()) -> None:
        self.is_measured = len(points) > 0
        table = np.array(points, dtype=float).reshape(-1, 2)
        if not ((table > 0) & (table <= 1)).all() or (np.diff(table, axis=0) <= 0).any():
            raise ValueError(
                "DEMO.SCORE_PRECISION holds pairs of a score and a precision that increase within "
                f"0..1, got {points}."
            )
        self._scores, self._shares = np.concatenate([[[0.0, 0.0]], table]).T

    def chance(self, score: float) -> float:
        """The chance that a person of a score is right.

        Raises:
            ValueError: nobody has measured it.
        """
        self._check_measured()
        return float(np.interp(score, self._scores, self._shares))

    def score(self, chance: float) -> float:
        """The lowest score of a chance; 1 for a chance that no score has.

        Raises:
            ValueError: nobody has measured it.
        """
        self._check_measured()
        return float(np.interp(chance, self._shares, self._scores, right=1.0))

    def _check_measured(self) -> None:
        if not self.is_measured:
            raise ValueError("The precision of this model's scores has not been measured.")

    def label(self, score: float) -> str:
        """What to write beside a person: "87%" where that was measured, else "score 0.31"."""
        return f"{self.chance(score):.0%}" if self.is_measured else f"score {score:.2f}"
