"""The configuration keys that QueryPose adds to Detectron2's, and how config files are read."""

from querypose.config.defaults import add_querypose_config, default_config
from querypose.config.reading import config_from_json, config_to_json, merge_options, read_config
from querypose.config_files import config_names, find_config_file, packaged_config_file

__all__ = [
    "add_querypose_config",
    "config_from_json",
    "config_names",
    "config_to_json",
    "default_config",
    "find_config_file",
    "merge_options",
    "packaged_config_file",
    "read_config",
]
