"""The configuration keys that QueryPose adds to Detectron2's, and how config files are read."""

from querypose.config.defaults import add_querypose_config, default_config
from querypose.config.reading import merge_options, read_config

__all__ = ["add_querypose_config", "default_config", "merge_options", "read_config"]
