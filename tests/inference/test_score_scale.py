"""Scores as people read them."""

from __future__ import annotations

import pytest

from querypose.inference.score_scale import ScoreScale


def test_chances_lie_on_the_lines_between_the_points():
    scale = ScoreScale([(0.1, 0.5), (0.3, 0.9)])
    chances = {0.0: 0.0, 0.05: 0.25, 0.1: 0.5, 0.2: 0.7, 0.3: 0.9, 1.0: 0.9}
    for score, chance in chances.items():
        assert scale.chance(score) == pytest.approx(chance)
    for score in (0.0, 0.05, 0.1, 0.2, 0.3):
        assert scale.score(scale.chance(score)) == pytest.approx(score)
    assert scale.score(0.95) == 1.0


def test_a_score_is_written_as_a_chance_only_if_that_was_measured():
    assert ScoreScale([(0.1, 0.5)]).label(0.1) == "50%"
    assert ScoreScale().label(0.114) == "score 0.11"
    assert not ScoreScale().is_measured
    with pytest.raises(ValueError, match="has not been measured"):
        ScoreScale().chance(0.1)


@pytest.mark.parametrize(
    "points", [[(0.3, 0.9), (0.1, 0.5)], [(0.1, 0.5), (0.3, 0.5)], [(0.1, 1.5)], [(0.0, 0.5)]]
)
def test_points_that_are_no_scale_are_refused(points):
    with pytest.raises(ValueError, match=r"DEMO\.SCORE_PRECISION holds pairs"):
        ScoreScale(points)
