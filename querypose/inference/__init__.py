"""Prediction with trained models."""

from querypose.inference.prediction import PartAttention, PosePrediction
from querypose.inference.predictor import PosePredictor

__all__ = ["PartAttention", "PosePrediction", "PosePredictor"]
