"""From images to people with a trained model."""

from querypose.inference.prediction import PartAttention, PosePrediction
from querypose.inference.predictor import PosePredictor

__all__ = ["PartAttention", "PosePrediction", "PosePredictor"]
