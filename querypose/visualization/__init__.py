"""Drawings of people and of their part attention, and sheets of many images."""

from querypose.visualization.attention import draw_attention, part_name
from querypose.visualization.maps import draw_maps
from querypose.visualization.sheet import pose_sheet
from querypose.visualization.visualizer import PoseVisualizer

__all__ = ["PoseVisualizer", "draw_attention", "draw_maps", "part_name", "pose_sheet"]
