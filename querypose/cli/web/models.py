"""The models that the page offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from querypose.data.image import read_image
from querypose.inference.prediction import PosePrediction
from querypose.inference.predictor import PosePredictor
from querypose.visualization import PoseVisualizer, draw_attention, draw_maps

SKELETON, ATTENTION, MAPS = "Skeletons", "Attention", "Maps"
_REQUESTS = {ATTENTION: "return_attention", MAPS: "return_maps"}
# The page asks for people of so small a fraction of the usual score, to show more at once.
_LOWEST_FRACTION = 0.25
# Each person has a row or two; who wants to see more can leave the others out of the image.
MOST_ATTENTION = 5


class Found(NamedTuple):
    """An image and its people.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        prediction: people down to :attr:`ServedModel.lowest_score`, with whatever the model can
            show of them.
    """

    image: np.ndarray
    prediction: PosePrediction


@dataclass(frozen=True)
class ServedModel:
    """A model of the page.

    Attributes:
        predictor: its threshold is the lowest score of the slider.
        usual_score: of the people that are shown at first.
        views: what it can show: :data:`SKELETON`, and :data:`ATTENTION` or :data:`MAPS`.
        draw: of a person, see :data:`querypose.drawable.PERSON`.
    """

    predictor: PosePredictor
    usual_score: float
    views: tuple[str, ...]
    draw: frozenset[str]

    @classmethod
    def of(cls, predictor: PosePredictor, draw: frozenset[str]) -> ServedModel:
        """Prepares a predictor for the page: lowers its threshold, and tries what it can show."""
        usual = predictor.confidence_threshold
        predictor.confidence_threshold = _LOWEST_FRACTION * usual
        views = (SKELETON, *(view for view in _REQUESTS if _can_show(predictor, view)))
        return cls(predictor, usual, views, draw)

    @property
    def lowest_score(self) -> float:
        """Of the people that the page can show."""
        return self.predictor.confidence_threshold

    def find(self, path: str) -> Found:
        """Predicts the people of an image file.

        Raises:
            FileNotFoundError, ValueError: it cannot be read.
        """
        image = read_image(path, "RGB")
        requests = {request: view in self.views for view, request in _REQUESTS.items()}
        return Found(image, self.predictor(image, **requests))

    def show(self, found: Found, view: str, score: float) -> tuple[np.ndarray, PosePrediction]:
        """Draws the people of at least a score, and returns them, too.

        Args:
            found: by this model.
            view: one of :attr:`views`.
            score: not below :attr:`lowest_score`.

        Returns:
            (H', W', 3) uint8 RGB: the image itself if the view shows persons and there is nobody.
        """
        shown = found.prediction.above(score)
        if view == MAPS:
            return draw_maps(found.image, shown), shown
        if view == ATTENTION and len(shown):
            people = range(min(len(shown), MOST_ATTENTION))
            return draw_attention(found.image, shown, people), shown
        visualizer = PoseVisualizer(
            found.image,
            self.predictor.metadata,
            draw=self.draw,
            keypoint_threshold=self.predictor.keypoint_threshold,
            score_scale=self.predictor.score_scale,
        )
        return visualizer.draw_instance_predictions(shown.instances).get_image(), shown


def _can_show(predictor: PosePredictor, view: str) -> bool:
    gray = np.full((64, 64, 3), 128, np.uint8)
    try:
        predictor(gray, **{_REQUESTS[view]: True})
    except ValueError:
        return False
    return True
